#include <attend/kernels/cpu/jit/products.h>

#include <attend/kernels/cpu/jit/avx2_generator.h>
#include <attend/kernels/cpu/jit/generator.h>
#include <attend/kernels/cpu/simd/tables.h>

#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace attend::kernels::cpu {

namespace {

/// Makes a generator for so many rows, of half a panel or a whole one.
template <typename Generator>
using Begin = std::unique_ptr<Generator> (*)(int rows, bool half);

/// Assembles kernels when they are asked for, some 20 microseconds each, and keeps them for the life of the program.
template <typename Generator>
class AssembledProducts final : public Products {
public:
    AssembledProducts(Begin<Generator> begin, int row_step, std::int64_t depth)
        : Products(row_step), begin_(begin), depth_(depth) {}

protected:
    ScoresKernel make_scores(Job job, int rows, bool half) const override {
        return make<ScoresKernel>(rows, half, [&](Generator& generator) { generator.make_scores(job, depth_); });
    }
    AccumulateKernel make_accumulate(Job job, int rows, bool half) const override {
        return make<AccumulateKernel>(rows, half, [&](Generator& generator) { generator.make_accumulate(job); });
    }
    TransposedKernel make_transposed(int rows, bool half) const override {
        return make<TransposedKernel>(rows, half, [&](Generator& generator) { generator.make_transposed(); });
    }

private:
    template <typename Kernel, typename Write>
    Kernel make(int rows, bool half, const Write& write) const {
        const std::lock_guard lock(jit::assembly_mutex());
        kernels_.push_back(begin_(rows, half));
        write(*kernels_.back());
        return kernels_.back()->template finish<Kernel>();
    }

    Begin<Generator> begin_;
    std::int64_t depth_;
    mutable std::vector<std::unique_ptr<Generator>> kernels_;
};

template <typename Generator, Begin<Generator> kBegin, int kRowStep>
const Products& find(std::int64_t depth) {
    // Never destroyed: threads may still compute while static objects are destroyed at exit.
    static auto* all = new std::map<std::int64_t, std::unique_ptr<AssembledProducts<Generator>>>;
    const std::lock_guard lock(jit::assembly_mutex());
    std::unique_ptr<AssembledProducts<Generator>>& products = (*all)[depth];
    if (!products) products = std::make_unique<AssembledProducts<Generator>>(kBegin, kRowStep, depth);
    return *products;
}

template <Format kFormat>
std::unique_ptr<jit::Generator> begin_avx512(int rows, bool half) {
    return std::make_unique<jit::Generator>(kFormat, rows, half);
}

std::unique_ptr<jit::Avx2Generator> begin_avx2(int rows, bool half) {
    return std::make_unique<jit::Avx2Generator>(rows, half, simd::avx2_table().run);
}

}  // namespace

ProductsOfDepth assembled_products_avx512(Format format) {
    if (!jit::can_assemble()) return nullptr;
    return format == Format::pairs ? find<jit::Generator, begin_avx512<Format::pairs>, 4>
                                   : find<jit::Generator, begin_avx512<Format::floats>, 4>;
}

ProductsOfDepth assembled_products_avx2() {
    if (!jit::can_assemble()) return nullptr;
    return find<jit::Avx2Generator, begin_avx2, 2>;
}

}  // namespace attend::kernels::cpu
