#include <attend/kernels/cpu/jit/products.h>

namespace attend::kernels::cpu {

ProductsOfDepth assembled_products_avx512(Format) {
    return nullptr;
}

ProductsOfDepth assembled_products_avx2() {
    return nullptr;
}

DenseKernelOf assembled_dense_avx512(Format) {
    return nullptr;
}

DenseKernelOf assembled_dense_avx2(Format) {
    return nullptr;
}

}  // namespace attend::kernels::cpu
