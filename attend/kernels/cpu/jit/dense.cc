#include <attend/kernels/cpu/jit/dense_avx2_generator.h>
#include <attend/kernels/cpu/jit/dense_generator.h>
#include <attend/kernels/cpu/jit/products.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace attend::kernels::cpu {

namespace {

/// The tiles of one format, assembled when they are asked for, some 20 microseconds each, and kept for the life of the
/// program.
template <typename Generator>
class AssembledTiles {
public:
    explicit AssembledTiles(Format format) : format_(format) {}

    DenseKernel find(int count, int panels, bool stream) {
        const auto index = static_cast<std::size_t>((count - 1) * 6 + panels / 2 * 2 + (stream ? 1 : 0));
        DenseKernel kernel = tiles_[index].load(std::memory_order_acquire);
        if (kernel == nullptr) {
            const std::lock_guard lock(jit::assembly_mutex());
            generators_.push_back(std::make_unique<Generator>(format_, count, panels, stream));
            kernel = generators_.back()->template finish<DenseKernel>();
            tiles_[index].store(kernel, std::memory_order_release);
        }
        return kernel;
    }

private:
    Format format_;
    std::array<std::atomic<DenseKernel>, static_cast<std::size_t>(kDenseRows)* 3 * 2> tiles_ = {};
    std::vector<std::unique_ptr<Generator>> generators_;
};

template <typename Generator, Format kFormat>
DenseKernel find(int count, int panels, bool stream) {
    // Never destroyed: threads may still compute while static objects are destroyed at exit.
    static auto* tiles = new AssembledTiles<Generator>(kFormat);
    return tiles->find(count, panels, stream);
}

template <typename Generator>
DenseKernelOf assembled_dense(Format format) {
    if (!jit::can_assemble()) return nullptr;
    switch (format) {
        case Format::floats:
            return find<Generator, Format::floats>;
        case Format::pairs:
            return find<Generator, Format::pairs>;
        default:
            return find<Generator, Format::quads>;
    }
}

}  // namespace

DenseKernelOf assembled_dense_avx512(Format format) {
    return assembled_dense<jit::DenseGenerator>(format);
}

DenseKernelOf assembled_dense_avx2(Format format) {
    return assembled_dense<jit::DenseAvx2Generator>(format);
}

}  // namespace attend::kernels::cpu
