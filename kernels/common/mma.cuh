// Tensor cores and asynchronous copies: one function per PTX instruction. They need compute capability 8.0: a file that
// includes this is not compiled for older GPUs.
#pragma once
#include "common/common.cuh"

// A generic pointer as an address in shared memory.
__device__ __forceinline__ unsigned shared_address(const void *p) {
    unsigned a;
    asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(a) : "l"(p));
    return a;
}

// Copies 16 bytes, both addresses multiples of 16; writes zeros and reads nothing where not `inside`.
__device__ __forceinline__ void cp_async_16(unsigned to, const float *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}

// The same for 4 bytes.
__device__ __forceinline__ void cp_async_4(unsigned to, const float *from, bool inside) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(inside ? 4 : 0) : "memory");
}

// The thread's copies since the last one are a group.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the thread's last N groups are there.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four matrices of 8 rows of 16 bytes. Lane l gives the address of row l % 8 of matrix l / 8, and gets the 4 bytes
// l % 4 of row l / 4 of each.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], unsigned row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// What tensor cores cut off to make a tf32, the lower 13 bits, is in the mean 0.36 of its last place for numbers of all
// magnitudes: they are scaled up by as much, 3/8, so that sums have no bias. An error is at most 5/8 of the last place
// (2^-10 of the number at most), where rounding to the nearest has 1/2; a tf32 stays what it is, a NaN stays one. cvt.rna
// does the latter in one instruction of PTX, but three to four of the machine's.
__device__ __forceinline__ unsigned to_tf32(unsigned bits) {
    return __float_as_uint(__uint_as_float(bits) * (1.f + 0.375f / 1024.f));
}

// d += a b of a warp, 16 x 8 times 8 x 8. With g = lane / 4 and t = lane % 4, a holds (row, k) (g, t), (g + 8, t),
// (g, t + 4), (g + 8, t + 4); b holds (k, column) (t, g), (t + 4, g); d holds (row, column) (g, 2 t), (g, 2 t + 1),
// (g + 8, 2 t), (g + 8, 2 t + 1).
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
