// Spectral normalisation (Miyato et al., 2018; torch.nn.utils.spectral_norm): one power iteration
//
//   v = n(W^T u),  u = n(W v),  sigma = u . (W v),  n(z) = z / max(|z|, 1e-12)
//
// with the weight as a matrix of CO rows and K = k*k*CI columns. The device stores its transpose, w [D, K, CO].
// Only 1/sigma leaves here: W/sigma is an epilogue factor of the convolution. Each pass keeps its own copy of
// u and v for the gradient, dW = (G - <G, W/sigma> u v^T) / sigma.
#include "common/common.cuh"

constexpr int THREADS = 256;
constexpr float EPS = 1e-12f;

// raw[d, k] = sum over co of w[d, k, co] * u[d, co]. `lanes` (a power of two, at most 32) threads share a row.
// grid (ceil(K * lanes / THREADS), D)
extern "C" __global__ void __launch_bounds__(THREADS)
    spectral_rows_f32(float *raw, const float *w, const float *u, int K, int CO, int lanes) {
    const int index = blockIdx.x * THREADS + threadIdx.x, k = index / lanes, lane = index % lanes, d = blockIdx.y;
    float sum = 0.f;
    if (k < K)
        for (int co = lane; co < CO; co += lanes) sum = fmaf(w[((size_t)d * K + k) * CO + co], u[d * CO + co], sum);
    for (int offset = lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(FULL, sum, offset);
    if (k < K && lane == 0) raw[(size_t)d * K + k] = sum;
}

// v = raw / max(|raw|, eps), to the state and to the pass's own copy (pass_v [D*passes, K], row d*passes + pass).
// grid (D)
extern "C" __global__ void __launch_bounds__(THREADS)
    spectral_normalise_f32(float *v, float *pass_v, const float *raw, int K, int passes, int pass) {
    __shared__ float scratch[THREADS / WARP];
    const int d = blockIdx.x;
    float sum = 0.f;
    for (int k = threadIdx.x; k < K; k += THREADS) sum = fmaf(raw[(size_t)d * K + k], raw[(size_t)d * K + k], sum);
    const float norm = fmaxf(sqrtf(block_sum<THREADS>(sum, scratch)), EPS);
    for (int k = threadIdx.x; k < K; k += THREADS) {
        const float z = raw[(size_t)d * K + k] / norm;
        v[(size_t)d * K + k] = z;
        pass_v[((size_t)d * passes + pass) * K + k] = z;
    }
}

// partial[d, chunk, co] = sum over the chunk's k of w[d, k, co] * v[d, k]. blockDim (channels, rows), 256 threads.
// grid (ceil(CO / blockDim.x), chunks, D)
extern "C" __global__ void __launch_bounds__(THREADS)
    spectral_columns_f32(float *partial, const float *w, const float *v, int K, int CO, int chunks) {
    __shared__ float scratch[THREADS];
    const int co = blockIdx.x * blockDim.x + threadIdx.x, chunk = blockIdx.y, d = blockIdx.z;
    const int end = (int)((long long)K * (chunk + 1) / chunks);
    float sum = 0.f;
    if (co < CO)
        for (int k = (int)((long long)K * chunk / chunks) + threadIdx.y; k < end; k += blockDim.y)
            sum = fmaf(w[((size_t)d * K + k) * CO + co], v[(size_t)d * K + k], sum);
    const int slot = threadIdx.y * blockDim.x + threadIdx.x;
    scratch[slot] = sum;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) scratch[slot] += scratch[slot + half * blockDim.x];
        __syncthreads();
    }
    if (threadIdx.y == 0 && co < CO) partial[((size_t)d * chunks + chunk) * CO + co] = scratch[slot];
}

// W v from its partials; u = n(W v) to the state and to the pass's copy [D*passes, CO]; inv_sigma [D*passes] =
// 1 / (u . W v), at d*passes + pass. grid (D)
extern "C" __global__ void __launch_bounds__(THREADS)
    spectral_finish_f32(float *u, float *pass_u, float *inv_sigma, const float *partial, int CO, int chunks, int passes,
                        int pass) {
    __shared__ float scratch[THREADS / WARP];
    const int d = blockIdx.x;
    float squares = 0.f;
    for (int co = threadIdx.x; co < CO; co += THREADS) {
        float t = 0.f;
        for (int chunk = 0; chunk < chunks; ++chunk) t += partial[((size_t)d * chunks + chunk) * CO + co];
        u[d * CO + co] = t;
        squares = fmaf(t, t, squares);
    }
    squares = block_sum<THREADS>(squares, scratch);
    const float norm = fmaxf(sqrtf(squares), EPS);
    float sigma = 0.f;
    for (int co = threadIdx.x; co < CO; co += THREADS) {
        const float t = u[d * CO + co], z = t / norm;
        u[d * CO + co] = z;
        pass_u[(d * passes + pass) * CO + co] = z;
        sigma = fmaf(z, t, sigma);
    }
    sigma = block_sum<THREADS>(sigma, scratch);
    if (threadIdx.x == 0) inv_sigma[d * passes + pass] = 1.f / sigma;
}

// <G, W/sigma> of each pass from activations: y - bias is x * (W/sigma), so the product is
// sum(dpre * (pre - bias)) with pre recovered from the layer's leaky-ReLU output. The sums of the chunks of a
// pass: partial [D*passes, chunks]. n elements a pass, channels fastest. grid (chunks, D*passes)
extern "C" __global__ void __launch_bounds__(THREADS)
    spectral_dot_f32(float *partial, const float *dpre, const float *out, OPTIONAL const float *bias, int n, int CO,
                     int passes, int act) {
    __shared__ float scratch[THREADS / WARP];
    const int pass = blockIdx.y, d = pass / passes, chunks = gridDim.x;
    const int end = (int)((long long)n * (blockIdx.x + 1) / chunks);
    float sum = 0.f;
    for (int i = (int)((long long)n * blockIdx.x / chunks) + threadIdx.x; i < end; i += THREADS) {
        float pre = out[(size_t)pass * n + i];
        if (act == LEAKY_RELU && !(pre > 0.f)) pre /= LEAK;
        if (bias) pre -= bias[d * CO + i % CO];
        sum = fmaf(dpre[(size_t)pass * n + i], pre, sum);
    }
    sum = block_sum<THREADS>(sum, scratch);
    if (threadIdx.x == 0) partial[pass * chunks + blockIdx.x] = sum;
}

// dweight[d, k, co] -= sum over passes of <G, W/sigma> / sigma * v[k] * u[co]. grid (ceil(K*CO / THREADS), D)
extern "C" __global__ void __launch_bounds__(THREADS)
    spectral_correct_f32(INOUT float *dweight, const float *partial, const float *inv_sigma, const float *pass_u,
                         const float *pass_v, int K, int CO, int passes, int chunks) {
    const int i = blockIdx.x * THREADS + threadIdx.x, d = blockIdx.y;
    if (i >= K * CO) return;
    const int k = i / CO, co = i % CO;
    float g = dweight[(size_t)d * K * CO + i];
    for (int pass = d * passes; pass < (d + 1) * passes; ++pass) {
        float dot = 0.f;
        for (int chunk = 0; chunk < chunks; ++chunk) dot += partial[pass * chunks + chunk];
        g = fmaf(-dot * inv_sigma[pass], pass_v[(size_t)pass * K + k] * pass_u[pass * CO + co], g);
    }
    dweight[(size_t)d * K * CO + i] = g;
}
