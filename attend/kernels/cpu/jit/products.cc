#include <attend/kernels/cpu/jit/products.h>

#include <attend/kernels/cpu/jit/generator.h>

#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace attend::kernels::cpu {

namespace {

/// Assembles kernels when they are asked for, some 20 microseconds each, and keeps them for the life of the program.
class AssembledProducts final : public Products {
public:
    AssembledProducts(Format format, std::int64_t depth) : Products(kRowStep), format_(format), depth_(depth) {}

protected:
    ScoresKernel make_scores(Job job, int rows, bool half) const override {
        return make<ScoresKernel>(rows, half, [&](jit::Generator& generator) { generator.make_scores(job, depth_); });
    }
    AccumulateKernel make_accumulate(Job job, int rows, bool half) const override {
        return make<AccumulateKernel>(rows, half, [&](jit::Generator& generator) { generator.make_accumulate(job); });
    }
    TransposedKernel make_transposed(int rows, bool half) const override {
        return make<TransposedKernel>(rows, half, [&](jit::Generator& generator) { generator.make_transposed(); });
    }

private:
    static constexpr int kRowStep = 4;

    template <typename Kernel, typename Write>
    Kernel make(int rows, bool half, const Write& write) const {
        const std::lock_guard lock(mutex_);
        kernels_.push_back(std::make_unique<jit::Generator>(format_, rows, half));
        write(*kernels_.back());
        return kernels_.back()->finish<Kernel>();
    }

    Format format_;
    std::int64_t depth_;
    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<jit::Generator>> kernels_;
};

template <Format kFormat>
const Products& find(std::int64_t depth) {
    // Never destroyed: threads may still compute while static objects are destroyed at exit.
    static std::mutex* mutex = new std::mutex;
    static auto* all = new std::map<std::int64_t, std::unique_ptr<AssembledProducts>>;
    const std::lock_guard lock(*mutex);
    std::unique_ptr<AssembledProducts>& products = (*all)[depth];
    if (!products) products = std::make_unique<AssembledProducts>(kFormat, depth);
    return *products;
}

}  // namespace

ProductsOfDepth assembled_products(Format format) {
    if (!jit::can_assemble()) return nullptr;
    return format == Format::pairs ? find<Format::pairs> : find<Format::floats>;
}

}  // namespace attend::kernels::cpu
