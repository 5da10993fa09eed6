// Which of the kernels on the processor's tiles a product takes, for both of their formats. Included behind
// tile_kernels.inl and the kernels, inside namespace attend::kernels::cpu::simd.

namespace {

/// Scores of the last panel, where its other half is behind the keys.
template <typename Kernels, Job kJob>
void scores_of_half(const ScoresArgs* args) {
    Kernels::template scores<2, kJob>(args);
    for (int r = 0; r < kRows; ++r) Simd::store(args->out + r * kColumns + kWidth, Simd::set1(-kInfinity));
}

/// The same kernels for every depth. Those of `Kernels` are templates of the number of row tiles and the job: scores,
/// accumulate, and, where kBackward says so, transposed and the jobs of backward.
template <typename Kernels>
class TileProducts final : public Products {
public:
    TileProducts() : Products(kTileSide) {}

protected:
    ScoresKernel make_scores(Job job, int rows, bool half) const override {
        if (job == Job::row_maximum) {
            return half ? scores_of_half<Kernels, Job::row_maximum> : scores<Job::row_maximum>(rows);
        }
        if constexpr (Kernels::kBackward) {
            if (job == Job::exp_plain) return scores<Job::exp_plain>(rows);
            if (job == Job::multiply) return scores<Job::multiply>(rows);
        }
        return half ? scores_of_half<Kernels, Job::none> : scores<Job::none>(rows);
    }
    // Halves of panels are computed whole: what they are filled up with is 0.
    AccumulateKernel make_accumulate(Job job, int rows, bool) const override {
        if constexpr (Kernels::kBackward) {
            if (job == Job::multiply) return accumulate<Job::multiply>(rows);
        }
        return job == Job::exponential ? accumulate<Job::exponential>(rows) : accumulate<Job::none>(rows);
    }
    TransposedKernel make_transposed(int rows, bool) const override {
        if constexpr (Kernels::kBackward) {
            return rows <= kTileSide ? Kernels::template transposed<1> : Kernels::template transposed<2>;
        } else {
            assert(false);
            return nullptr;
        }
    }

private:
    template <Job kJob>
    static ScoresKernel scores(int rows) {
        return rows <= kTileSide ? Kernels::template scores<1, kJob> : Kernels::template scores<2, kJob>;
    }
    template <Job kJob>
    static AccumulateKernel accumulate(int rows) {
        return rows <= kTileSide ? Kernels::template accumulate<1, kJob> : Kernels::template accumulate<2, kJob>;
    }
};

void begin_tiles() {
    static constexpr TileShapes kShapes;
    shape_tiles(kShapes);
}

template <typename Kernels>
const Products& tile_products(std::int64_t) {
    static const TileProducts<Kernels> products;
    return products;
}

/// A table but for how operands are packed, and the jobs alone.
template <typename Kernels>
TileKernels tile_table(Format format, int steps_of_panel) {
    TileKernels table = table_without_products(Isa::amx);
    table.format = format;
    table.step_columns = steps_of_panel;
    table.depth_steps = steps_of_panel;
    table.begin_products = begin_tiles;
    table.end_products = release_tiles;
    table.products = tile_products<Kernels>;
    return table;
}

}  // namespace
