/// @file
/// Products assembled at run time for AVX-512: the same as those of simd/, bit for bit, with jobs woven between the
/// multiply-adds. Compilers keep the two apart, which costs five to ten percent of the machine's limit.
#pragma once

#include <attend/kernels/cpu/tile_kernels.h>

#include <cstdint>

namespace attend::kernels::cpu {

/// Finds the products over `depth` steps.
using ProductsOfDepth = const Products& (*)(std::int64_t depth);

/// Null where the build has no assembler, or the system refuses executable memory.
ProductsOfDepth assembled_products(Format format);

}  // namespace attend::kernels::cpu
