// A convolution to few channels as one to more of them: from K x K taps to CO channels becomes K x 1 taps to K*CO columns,
// column (kw, co) of pixel w being what tap kw gives to channel co of pixel w - kw. A tile of a matrix product is then
// filled, and each input is read K times instead of K * K.
//
//   wide [D*N, H, W + K - 1, C]   pixels and columns, C = K * CO rounded up; the columns beyond are 0
//   out  [D*N, H, W, CO]          what the convolution gives
#include "common/common.cuh"

constexpr int THREADS = 256;

// The weight [D, K, K, CI, CO] as [D, K, 1, CI, C]. grid (ceil(K*CI*C / THREADS), D)
extern "C" __global__ void __launch_bounds__(THREADS)
    narrow_weight_f32(float *wide, const float *weight, int K, int CI, int CO, int C) {
    const int index = blockIdx.x * THREADS + threadIdx.x, d = blockIdx.y;
    if (index >= K * CI * C) return;
    const int column = index % C, ci = index / C % CI, kh = index / C / CI, kw = column / CO, co = column % CO;
    const float *w = weight + (size_t)d * K * K * CI * CO;
    wide[(size_t)d * K * CI * C + index] = kw < K ? w[((kh * K + kw) * CI + ci) * CO + co] : 0.f;
}

// Its gradient, back. grid (ceil(K*K*CI*CO / THREADS), D)
extern "C" __global__ void __launch_bounds__(THREADS)
    narrow_weight_backward_f32(ADDS_IF(accumulate) float *dweight, const float *wide, int K, int CI, int CO, int C,
                               int accumulate) {
    const int index = blockIdx.x * THREADS + threadIdx.x, d = blockIdx.y, count = K * K * CI * CO;
    if (index >= count) return;
    const int co = index % CO, ci = index / CO % CI, tap = index / CO / CI, kh = tap / K, kw = tap % K;
    const float v = wide[((size_t)d * K * CI + kh * CI + ci) * C + kw * CO + co];
    store(dweight + (size_t)d * count + index, v, accumulate);
}

// out = act(sum over kw of column (kw, co) of pixel w + kw, plus bias), in that order. grid (ceil(W*CO / THREADS), H, D*N)
extern "C" __global__ void __launch_bounds__(THREADS)
    narrow_fold_f32(float *out, const float *wide, OPTIONAL const float *bias, int N, int H, int W, int CO, int K, int C,
                    int act) {
    const int index = blockIdx.x * THREADS + threadIdx.x, h = blockIdx.y, image = blockIdx.z;
    if (index >= W * CO) return;
    const int co = index % CO, w = index / CO;
    const float *from = wide + (((size_t)image * H + h) * (W + K - 1) + w) * C + co;
    float sum = 0.f;
    for (int kw = 0; kw < K; ++kw) sum += from[kw * (C + CO)];
    if (bias) sum += bias[image / N * CO + co];
    out[((size_t)image * H + h) * W * CO + index] = activate(sum, act);
}

// Its gradient: column (kw, co) of pixel w is dout of pixel w - kw, 0 where there is none.
// grid (ceil((W + K - 1)*C / THREADS), H, D*N)
extern "C" __global__ void __launch_bounds__(THREADS)
    narrow_fold_backward_f32(float *wide, const float *dout, int H, int W, int CO, int K, int C) {
    const int index = blockIdx.x * THREADS + threadIdx.x, h = blockIdx.y, image = blockIdx.z;
    const int width = W + K - 1;
    if (index >= width * C) return;
    const int column = index % C, kw = column / CO, co = column % CO, w = index / C - kw;
    const bool inside = kw < K && w >= 0 && w < W;
    wide[((size_t)image * H + h) * width * C + index] =
        inside ? dout[(((size_t)image * H + h) * W + w) * CO + co] : 0.f;
}
