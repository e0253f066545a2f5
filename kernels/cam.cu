// Class-activation attention (U-GAT-IT section 2): classifiers on the pooled features, and the feature map
// weighted by the classifiers' rows.
//
//   y = conv1x1(concat(x * w_gap, x * w_gmp)) = conv1x1'(x),  W'[ci, co] = W[ci, co] w_gap[ci] + W[C + ci, co] w_gmp[ci]
//
// so the two weighted copies are never written: the weighting folds into the 1x1 weights (cam_fold), which
// halves the contraction. x [D*N, HW, C]; W [D, 2C, C]; w_gap, w_gmp [D, C].
#include "common/common.cuh"

constexpr int THREADS = 256;

// folded [D, C, C] as above. grid (ceil(C / THREADS), C, D)
extern "C" __global__ void __launch_bounds__(THREADS)
    cam_fold_f32(float *folded, const float *weight, const float *gap_w, const float *gmp_w, int C) {
    const int co = blockIdx.x * THREADS + threadIdx.x, ci = blockIdx.y, d = blockIdx.z;
    if (co >= C) return;
    const float *w = weight + (size_t)d * 2 * C * C;
    folded[((size_t)d * C + ci) * C + co] =
        fmaf(w[ci * C + co], gap_w[d * C + ci], w[(C + ci) * C + co] * gmp_w[d * C + ci]);
}

// From dfolded: dweight [D, 2C, C], dgap_w and dgmp_w [D, C]. grid (C, D)
extern "C" __global__ void __launch_bounds__(THREADS)
    cam_fold_backward_f32(ADDS_IF(accumulate_weight) float *dweight, ADDS_IF(accumulate_rows) float *dgap_w,
                          ADDS_IF(accumulate_rows) float *dgmp_w, const float *dfolded, const float *weight,
                          const float *gap_w, const float *gmp_w, int C, int accumulate_weight, int accumulate_rows) {
    __shared__ float scratch[THREADS / WARP];
    const int ci = blockIdx.x, d = blockIdx.y;
    const float a = gap_w[d * C + ci], m = gmp_w[d * C + ci];
    const float *w = weight + (size_t)d * 2 * C * C;
    float *dw = dweight + (size_t)d * 2 * C * C;
    float da = 0.f, dm = 0.f;
    for (int co = threadIdx.x; co < C; co += THREADS) {
        const float g = dfolded[((size_t)d * C + ci) * C + co];
        da = fmaf(g, w[ci * C + co], da);
        dm = fmaf(g, w[(C + ci) * C + co], dm);
        store(dw + ci * C + co, g * a, accumulate_weight);
        store(dw + (C + ci) * C + co, g * m, accumulate_weight);
    }
    da = block_sum<THREADS>(da, scratch);
    dm = block_sum<THREADS>(dm, scratch);
    if (threadIdx.x == 0) {
        store(dgap_w + d * C + ci, da, accumulate_rows);
        store(dgmp_w + d * C + ci, dm, accumulate_rows);
    }
}

// logits [images, 2] = (gap . w_gap, gmp . w_gmp), each times its 1/sigma where given. grid (images)
extern "C" __global__ void __launch_bounds__(THREADS)
    cam_logits_forward_f32(float *logits, const float *gap, const float *gmp, const float *gap_w, const float *gmp_w,
                           OPTIONAL const float *gap_scale, OPTIONAL const float *gmp_scale, int C, int N,
                           int n_per_scale) {
    __shared__ float scratch[THREADS / WARP];
    const int image = blockIdx.x, d = image / N;
    float a = 0.f, m = 0.f;
    for (int c = threadIdx.x; c < C; c += THREADS) {
        a = fmaf(gap[image * C + c], gap_w[d * C + c], a);
        m = fmaf(gmp[image * C + c], gmp_w[d * C + c], m);
    }
    a = block_sum<THREADS>(a, scratch);
    m = block_sum<THREADS>(m, scratch);
    if (threadIdx.x == 0) {
        logits[image * 2] = gap_scale ? a * gap_scale[image / n_per_scale] : a;
        logits[image * 2 + 1] = gmp_scale ? m * gmp_scale[image / n_per_scale] : m;
    }
}

// dgap, dgmp [images, C] from dlogits [images, 2]. grid (ceil(C / THREADS), images)
extern "C" __global__ void __launch_bounds__(THREADS)
    cam_logits_backward_pool_f32(float *dgap, float *dgmp, const float *dlogits, const float *gap_w, const float *gmp_w,
                                 OPTIONAL const float *gap_scale, OPTIONAL const float *gmp_scale, int C, int N,
                                 int n_per_scale) {
    const int c = blockIdx.x * THREADS + threadIdx.x, image = blockIdx.y, d = image / N;
    if (c >= C) return;
    const float a = gap_scale ? gap_scale[image / n_per_scale] : 1.f, m = gmp_scale ? gmp_scale[image / n_per_scale] : 1.f;
    dgap[image * C + c] = dlogits[image * 2] * a * gap_w[d * C + c];
    dgmp[image * C + c] = dlogits[image * 2 + 1] * m * gmp_w[d * C + c];
}

// Gradient of one classifier row [D, C] from dlogits and the pooled features; `which` 0 GAP, 1 GMP. Under
// spectral norm (scale, u, v given; u [D*passes], v [D*passes, C] of each pass over n_per_scale images):
// dw = sum over passes of (G - <G, w/sigma> u v^T) / sigma, and <G, w/sigma> = sum of dlogit * logit.
// grid (ceil(C / THREADS), D)
extern "C" __global__ void __launch_bounds__(THREADS)
    cam_logits_backward_weight_f32(ADDS_IF(accumulate) float *dweight, const float *dlogits, const float *logits,
                                   const float *pooled, OPTIONAL const float *scale, OPTIONAL const float *u,
                                   OPTIONAL const float *v, int which, int C, int N, int n_per_scale, int accumulate) {
    const int c = blockIdx.x * THREADS + threadIdx.x, d = blockIdx.y;
    if (c >= C) return;
    float total = 0.f;
    for (int first = d * N; first < (d + 1) * N; first += n_per_scale) {
        float g = 0.f, dot = 0.f;
        for (int image = first; image < first + n_per_scale; ++image) {
            const float dl = dlogits[image * 2 + which];
            g = fmaf(dl, pooled[image * C + c], g);
            dot = fmaf(dl, logits[image * 2 + which], dot);
        }
        if (scale) {
            const int pass = first / n_per_scale;
            g = (g - dot * u[pass] * v[(size_t)pass * C + c]) * scale[pass];
        }
        total += g;
    }
    store(dweight + d * C + c, total, accumulate);
}

// heatmap [images, HW] = sum of the attended features over the channels; a warp a pixel.
// grid (ceil(images * HW / (THREADS / 32)))
extern "C" __global__ void __launch_bounds__(THREADS) cam_heatmap_f32(float *heatmap, const float *x, int pixels, int C) {
    const int pixel = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (pixel >= pixels) return;
    float sum = 0.f;
    for (int c = threadIdx.x % WARP; c < C; c += WARP) sum += x[(size_t)pixel * C + c];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) heatmap[pixel] = sum;
}
