/// @file
/// Products assembled at run time: the same as those of simd/, bit for bit. Those of attention have jobs woven between
/// the multiply-adds, where compilers keep the two apart, which costs five to ten percent of the machine's limit.
#pragma once

#include <attend/kernels/cpu/dense_kernels.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstdint>

namespace attend::kernels::cpu {

/// Finds the products over `depth` steps.
using ProductsOfDepth = const Products& (*)(std::int64_t depth);

/// Products by AVX-512. Null where the build has no assembler, or the system refuses executable memory.
ProductsOfDepth assembled_products_avx512(Format format);
/// The same of floats by AVX2.
ProductsOfDepth assembled_products_avx2();

/// Finds the tile of dense products, as DenseKernels::kernel.
using DenseKernelOf = DenseKernel (*)(int count, int panels, bool stream);

/// The same of dense products by AVX-512; the processor must have the format's instructions.
DenseKernelOf assembled_dense_avx512(Format format);
/// The same by AVX2.
DenseKernelOf assembled_dense_avx2(Format format);

}  // namespace attend::kernels::cpu
