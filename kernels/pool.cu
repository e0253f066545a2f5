// Global average and maximum pooling in one pass, and their gradient.
#include "common/common.cuh"

constexpr int THREADS = 256;

// Sum, maximum and position of the maximum of a chunk of pixels, per image and channel:
// partial_sum, partial_max, partial_at are [images, chunks, C]. On ties the first pixel in row-major order
// wins, as in PyTorch. blockDim (channels, pixels), 256 threads. grid (ceil(C / blockDim.x), chunks, images)
extern "C" __global__ void __launch_bounds__(THREADS)
    global_pool_partial_f32(float *partial_sum, float *partial_max, int *partial_at, const float *x, int HW, int C,
                            int chunks) {
    __shared__ float sums[THREADS], tops[THREADS];
    __shared__ int places[THREADS];
    const int c = blockIdx.x * blockDim.x + threadIdx.x, chunk = blockIdx.y, image = blockIdx.z;
    const int begin = (int)((long long)HW * chunk / chunks), end = (int)((long long)HW * (chunk + 1) / chunks);
    float sum = 0.f, top = -__int_as_float(0x7f800000);
    int place = begin;
    if (c < C) {
        for (int i = begin + threadIdx.y; i < end; i += blockDim.y) {
            const float v = x[((size_t)image * HW + i) * C + c];
            sum += v;
            if (v > top) top = v, place = i;
        }
    }
    const int slot = threadIdx.y * blockDim.x + threadIdx.x;
    sums[slot] = sum, tops[slot] = top, places[slot] = place;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) {
            const int o = slot + half * blockDim.x;
            sums[slot] += sums[o];
            if (tops[o] > tops[slot] || (tops[o] == tops[slot] && places[o] < places[slot]))
                tops[slot] = tops[o], places[slot] = places[o];
        }
        __syncthreads();
    }
    if (threadIdx.y == 0 && c < C) {
        const size_t at = ((size_t)image * chunks + chunk) * C + c;
        partial_sum[at] = sums[slot], partial_max[at] = tops[slot], partial_at[at] = places[slot];
    }
}

// Joins the chunks: average, maximum and argmax (pixel index), each [images, C]; maximum and argmax may be
// null. grid (ceil(C / THREADS), images)
extern "C" __global__ void __launch_bounds__(THREADS)
    global_pool_finish_f32(float *average, OPTIONAL float *maximum, OPTIONAL int *argmax, const float *partial_sum,
                           const float *partial_max, const int *partial_at, int HW, int C, int chunks) {
    const int c = blockIdx.x * THREADS + threadIdx.x, image = blockIdx.y;
    if (c >= C) return;
    float sum = 0.f, top = 0.f;
    int place = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        const size_t at = ((size_t)image * chunks + chunk) * C + c;
        sum += partial_sum[at];
        if (chunk == 0 || partial_max[at] > top) top = partial_max[at], place = partial_at[at];
    }
    average[image * C + c] = sum / (float)HW;
    if (maximum) maximum[image * C + c] = top, argmax[image * C + c] = place;
}

// dinp (+)= daverage / HW everywhere, plus dmaximum at the argmax; dmaximum and argmax may be null.
// blockDim (channels, pixels). grid (ceil(C / blockDim.x), chunks, images)
extern "C" __global__ void __launch_bounds__(THREADS)
    global_pool_backward_f32(ADDS_IF(accumulate) float *dinp, const float *daverage, OPTIONAL const float *dmaximum,
                             OPTIONAL const int *argmax, int HW, int C, int chunks, int accumulate) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.z;
    if (c >= C) return;
    const int begin = (int)((long long)HW * blockIdx.y / chunks), end = (int)((long long)HW * (blockIdx.y + 1) / chunks);
    const float mean = daverage[image * C + c] / (float)HW;
    const int place = dmaximum ? argmax[image * C + c] : -1;
    const float top = dmaximum ? dmaximum[image * C + c] : 0.f;
    for (int i = begin + threadIdx.y; i < end; i += blockDim.y)
        store(dinp + ((size_t)image * HW + i) * C + c, i == place ? mean + top : mean, accumulate);
}
