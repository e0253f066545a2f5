// Adam with L2 weight decay added to the gradient (torch.optim.Adam, not AdamW), and the rho clip.
#include "common/common.cuh"

constexpr int THREADS = 256;

// One launch over all parameters of an optimiser: p, m, v, g [n]. What changes from step to step is read from
// `schedule` on the device: [0] = lr / (1 - beta1^t), [1] = 1 / sqrt(1 - beta2^t).
// p -= schedule[0] * m / (sqrt(v) * schedule[1] + eps). grid (ceil(n / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS)
    adam_f32(INOUT float *p, INOUT float *m, INOUT float *v, const float *g, const float *schedule, int n, float beta1,
             float beta2, float one_minus_beta1, float one_minus_beta2, float eps, float weight_decay) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const float w = p[i], grad = fmaf(weight_decay, w, g[i]);
    const float mi = fmaf(beta1, m[i], one_minus_beta1 * grad);
    const float vi = fmaf(beta2, v[i], one_minus_beta2 * grad * grad);
    m[i] = mi;
    v[i] = vi;
    p[i] = w - schedule[0] * mi / fmaf(sqrtf(vi), schedule[1], eps);
}

// rho = min(max(rho, low), high); a NaN stays. grid (ceil(n / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS) rho_clip_f32(INOUT float *rho, int n, float low, float high) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const float r = rho[i];
    rho[i] = r < low ? low : (r > high ? high : r);
}
