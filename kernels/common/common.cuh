// What every kernel file shares: activations, index helpers, block reductions.
//
// Layout everywhere: activations [D, N, H, W, C] with D the direction axis (two generators, or a pair
// of discriminators, computed as one network), weights [D, ...]. An "image" below is one of the D * N
// samples; image i belongs to direction i / N.
#pragma once

// ---------------------------------------------------------------- what a pointer parameter is
// A const pointer is an input, any other an output; where a kernel's signature has to say more, it says it with these.
// build.rs reads them and gives each argument its type in `kernels::args`; the compiler sees nothing.
#define INOUT          // updated in place: what is there is read, then replaced
#define SCRATCH        // working memory of this launch: nothing goes in, nothing comes out
#define OPTIONAL       // may be null
#define ADDS_IF(flag)  // stored to where the parameter `flag` is 0, added to where it is 1

constexpr int WARP = 32;
constexpr unsigned FULL = 0xffffffffu;

// ---------------------------------------------------------------- activations
enum Activation { NONE = 0, RELU = 1, LEAKY_RELU = 2, TANH = 3 };
constexpr float LEAK = 0.2f;

__device__ __forceinline__ float activate(float v, int act) {
    if (act == RELU) return v > 0.f ? v : (v == v ? 0.f : v);  // a NaN stays a NaN
    if (act == LEAKY_RELU) return v > 0.f ? v : LEAK * v;
    if (act == TANH) return tanhf(v);
    return v;
}

// d act / d v from the activation's own output. At 0: ReLU 0, leaky ReLU 0.2, as PyTorch has it.
__device__ __forceinline__ float activation_slope(float y, int act) {
    if (act == RELU) return y > 0.f ? 1.f : 0.f;
    if (act == LEAKY_RELU) return y > 0.f ? 1.f : LEAK;
    if (act == TANH) return 1.f - y * y;
    return 1.f;
}

// ---------------------------------------------------------------- small index helpers
__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Reflection without repeating the edge: -1 -> 1, n -> n - 2. Needs -n < i < 2 n - 1.
__device__ __forceinline__ int reflect(int i, int n) {
    if (i < 0) i = -i;
    return i < n ? i : 2 * n - 2 - i;
}

// The other way round: position u of n shows at most three times in a padding by P, at itself (k 0) and at its
// left (1) and right (2) mirror image. False where it has no such image.
__device__ __forceinline__ bool mirror(int &q, int k, int u, int n, int P) {
    q = k == 0 ? P + u : k == 1 ? P - u : P + 2 * n - 2 - u;
    return k == 0 || (k == 1 ? u >= 1 && u <= P : u >= n - 1 - P && u <= n - 2);
}

// blockIdx, though the compiler does not know that it is: what depends on it is computed again where it is used, and takes
// no register from a main loop in between.
__device__ __forceinline__ uint3 block_index_again() {
    uint3 b;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(b.x));
    asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(b.y));
    asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(b.z));
    return b;
}

// The pixels of n, reflect-padded by P, whose padded positions q have q % S == phase: q = phase + S (first + i), i < count.
struct Phase {
    int phase, S, P, first, count;
    __device__ __forceinline__ Phase(int n, int phase, int S, int P) : phase(phase), S(S), P(P) {
        first = phase < P ? ceil_div(P - phase, S) : 0;
        count = phase < P + n ? (P + n - 1 - phase) / S + 1 - first : 0;
    }
    __device__ __forceinline__ int pixel(int i) const { return phase + S * (first + i) - P; }
};

// `=` or `+=`, decided by the planner: the first write of a gradient stores, later ones add.
__device__ __forceinline__ void store(float *p, float v, int accumulate) { *p = accumulate ? *p + v : v; }

__device__ __forceinline__ void store4(float *p, float4 v, int accumulate) {
    if (accumulate) {
        const float4 o = *reinterpret_cast<const float4 *>(p);
        v = make_float4(o.x + v.x, o.y + v.y, o.z + v.z, o.w + v.w);
    }
    *reinterpret_cast<float4 *>(p) = v;
}

__device__ __forceinline__ float4 load4(const float *p) { return *reinterpret_cast<const float4 *>(p); }

// Adds 1; returns the old value; wraps to 0 after `last`. What the block's threads wrote before a barrier before it, a
// thread sees that comes behind it in another block.
__device__ __forceinline__ unsigned inc_acq_rel(unsigned *counter, unsigned last) {
    unsigned old;
    asm volatile("atom.inc.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(counter), "r"(last) : "memory");
    return old;
}

// ---------------------------------------------------------------- reductions in a fixed order
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL, v, offset);
    return v;
}

// Sum over the block, the same value in every thread. BLOCK threads, a multiple of 32; `scratch` holds
// BLOCK / 32 floats; `thread` is the thread's number in the block. Starts with a barrier, so that the scratch
// may be used again at once.
template <int BLOCK>
__device__ __forceinline__ float block_sum(float v, float *scratch, int thread = threadIdx.x) {
    v = warp_sum(v);
    __syncthreads();
    if (thread % WARP == 0) scratch[thread / WARP] = v;
    __syncthreads();
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < BLOCK / WARP; ++i) total += scratch[i];
    return total;
}
