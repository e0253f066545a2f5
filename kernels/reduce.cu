// Sums in a fixed order: the chunks of a split reduction, and the columns of a matrix.
#include "common/common.cuh"

constexpr int THREADS = 256;

// out[i] (+)= partial[0][i] + partial[1][i] + ...: the chunks of a split reduction, added in order.
// partial is [chunks, n]. grid (ceil(n / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS)
    reduce_partials_f32(ADDS_IF(accumulate) float *out, const float *partial, int n, int chunks, int accumulate) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    float sum = 0.f;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += partial[(size_t)chunk * n + i];
    store(out + i, sum, accumulate);
}

// Column sums, the gradient of a bias: partial[chunk, d, c] = sum over the chunk's rows of dout[d, row, c].
// dout is [D, rows, C]. blockDim (channels, rows) with 256 threads. grid (ceil(C / blockDim.x), chunks, D)
extern "C" __global__ void __launch_bounds__(THREADS)
    bias_backward_f32(ADDS_IF(accumulate) float *partial, const float *dout, int rows, int C, int chunks,
                      int accumulate) {
    __shared__ float scratch[THREADS];
    const int c = blockIdx.x * blockDim.x + threadIdx.x, chunk = blockIdx.y, d = blockIdx.z;
    const int end = (int)((long long)rows * (chunk + 1) / chunks);
    float sum = 0.f;
    if (c < C)
        for (int row = (int)((long long)rows * chunk / chunks) + threadIdx.y; row < end; row += blockDim.y)
            sum += dout[((size_t)d * rows + row) * C + c];
    scratch[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half)
            scratch[threadIdx.y * blockDim.x + threadIdx.x] += scratch[(threadIdx.y + half) * blockDim.x + threadIdx.x];
        __syncthreads();
    }
    if (threadIdx.y == 0 && c < C) store(partial + ((size_t)chunk * gridDim.z + d) * C + c, scratch[threadIdx.x], accumulate);
}
