// Element-wise activations on their own.
#include "common/common.cuh"

constexpr int THREADS = 256;

// out = act(inp); act 1 ReLU, 2 leaky ReLU (0.2), 3 tanh. grid (ceil(n / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS) activation_forward_f32(float *out, const float *inp, int n, int act) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) out[i] = activate(inp[i], act);
}

// dinp = dout * act'(.), the slope taken from the activation's output. grid (ceil(n / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS)
    activation_backward_f32(float *dinp, const float *dout, const float *out, int n, int act) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) dinp[i] = dout[i] * activation_slope(out[i], act);
}
