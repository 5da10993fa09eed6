#include <attend/kernels/cpu/jit/products.h>

namespace attend::kernels::cpu {

ProductsOfDepth assembled_products(Format) {
    return nullptr;
}

DenseKernelOf assembled_dense(Format) {
    return nullptr;
}

}  // namespace attend::kernels::cpu
