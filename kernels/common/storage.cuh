// Storage types, and rows of them as floats: 16 bytes a thread, 4 floats or 8 of a 16-bit type. Arithmetic is
// always in fp32; only what lies in memory is narrow.
#pragma once
#include "common/common.cuh"

struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

// ---------------------------------------------------------------- one function per PTX instruction
__device__ __forceinline__ float cvt_f32_f16(unsigned short a) {
    float d;
    asm("cvt.f32.f16 %0, %1;" : "=f"(d) : "h"(a));
    return d;
}

__device__ __forceinline__ unsigned cvt_rn_f16x2_f32(float high, float low) {
    unsigned d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}

#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ unsigned cvt_rn_bf16x2_f32(float high, float low) {
    unsigned d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
}
#else
// Turing has no such instruction: to the nearest, ties to even, and every NaN is 0x7fff.
__device__ __forceinline__ unsigned rn_bf16_f32(float v) {
    const unsigned bits = __float_as_uint(v);
    return v == v ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : 0x7fffu;
}

__device__ __forceinline__ unsigned cvt_rn_bf16x2_f32(float high, float low) {
    return rn_bf16_f32(high) << 16 | rn_bf16_f32(low);
}
#endif

// ---------------------------------------------------------------- two 16-bit values in a register
__device__ __forceinline__ void unpack(float &low, float &high, unsigned pair, f16) {
    low = cvt_f32_f16((unsigned short)pair);
    high = cvt_f32_f16((unsigned short)(pair >> 16));
}

// A bf16 is the upper half of a float.
__device__ __forceinline__ void unpack(float &low, float &high, unsigned pair, bf16) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ unsigned pack(float low, float high, f16) { return cvt_rn_f16x2_f32(high, low); }
__device__ __forceinline__ unsigned pack(float low, float high, bf16) { return cvt_rn_bf16x2_f32(high, low); }

// ---------------------------------------------------------------- V values at p as floats, and back
__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(f16 v) { return cvt_f32_f16(v.bits); }
__device__ __forceinline__ float to_float(bf16 v) { return __uint_as_float((unsigned)v.bits << 16); }

// One value, or as many whole 16 bytes as V values take.
template <int V, typename T>
__device__ __forceinline__ void load_row(float (&v)[V], const T *p) {
    static_assert(V == 1 || V * sizeof(T) % 16 == 0, "whole 16 bytes");
    if constexpr (V == 1) {
        v[0] = to_float(*p);
    } else if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const float4 q = *reinterpret_cast<const float4 *>(p + i);
            v[i] = q.x, v[i + 1] = q.y, v[i + 2] = q.z, v[i + 3] = q.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 8) {
            const uint4 q = *reinterpret_cast<const uint4 *>(p + i);
            unpack(v[i], v[i + 1], q.x, T());
            unpack(v[i + 2], v[i + 3], q.y, T());
            unpack(v[i + 4], v[i + 5], q.z, T());
            unpack(v[i + 6], v[i + 7], q.w, T());
        }
    }
}

template <int V, typename T>
__device__ __forceinline__ void store_row(T *p, const float (&v)[V]) {
    static_assert(V == 1 || V * sizeof(T) % 16 == 0, "whole 16 bytes");
    if constexpr (V == 1) {
        if constexpr (sizeof(T) == 4)
            *p = v[0];
        else
            p->bits = (unsigned short)pack(v[0], 0.f, T());
    } else if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < V; i += 4)
            *reinterpret_cast<float4 *>(p + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 8)
            *reinterpret_cast<uint4 *>(p + i) = make_uint4(pack(v[i], v[i + 1], T()), pack(v[i + 2], v[i + 3], T()),
                                                           pack(v[i + 4], v[i + 5], T()), pack(v[i + 6], v[i + 7], T()));
    }
}

// `=` or `+=`, as `store`.
template <int V, typename T>
__device__ __forceinline__ void store_row(T *p, float (&v)[V], int accumulate) {
    if (accumulate) {
        float old[V];
        load_row(old, p);
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] += old[i];
    }
    store_row(p, v);
}
