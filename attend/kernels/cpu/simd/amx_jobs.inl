// Jobs beside products on the processor's tiles, for both of their formats: compiled code that stands between or behind
// multiplications, which go on meanwhile. Included behind tile_kernels.inl inside namespace
// attend::kernels::cpu::simd.
//
// An `Operand` says what weights are: their panel's floats (kWeightPanel), exponent(logit, shift, factor), power(x) and
// store_weights(panel, row, a, b); and where kBackward, Gradients: multiply(args, row), two rows at a time, and
// finish(args, rows) behind a panel's last.

namespace {

constexpr std::int64_t kScorePanel = kRows * kColumns;  ///< floats

/// A job's panels row by row, dealt out evenly over the turns that a product has, or as many at a time as it says.
template <typename Operand, Job kJob>
class Work {
public:
    /// @param rows of each panel, even for `multiply` @param turns that the product has
    Work(const JobArgs& args, std::int64_t rows, std::int64_t turns)
        : args_(args), rows_(rows), left_(args.panels * rows), turns_(turns * kStep), total_(left_) {}

    /// One of the turns: its share of the rows, as far as there are any.
    [[gnu::always_inline]] void turn() {
        for (owed_ += total_; owed_ >= turns_ && left_ > 0; owed_ -= turns_) next_rows();
    }

    /// The next rows, as far as there are any.
    [[gnu::always_inline]] void advance(std::int64_t count) {
        for (count = std::min(count, left_); count > 0; count -= kStep) next_rows();
    }

    /// All that are left.
    void finish() {
        while (left_ > 0) next_rows();
    }

private:
    static constexpr int kStep = kJob == Job::multiply ? 2 : 1;

    struct None {};
    template <typename O>
    struct OfOperand {
        using type = typename O::Gradients;
    };
    using Gradients =
        typename std::conditional_t<kJob == Job::multiply, OfOperand<Operand>, std::type_identity<None>>::type;

    [[gnu::always_inline]] void next_rows() {
        do_rows();
        left_ -= kStep;
        row_ += kStep;
        if (row_ == rows_) next_panel();
    }

    [[gnu::always_inline]] void do_rows() {
        if constexpr (kJob == Job::multiply) {
            gradients_.multiply(args_, row_);
            return;
        }
        float* source = args_.source + row_ * kColumns;
        Vec a = Simd::load(source);
        Vec b = Simd::load(source + kWidth);
        if constexpr (kJob == Job::row_maximum) {
            float* maximum = args_.target + row_ * kWidth;
            _mm512_storeu_ps(maximum, Simd::max(Simd::max(Simd::load(maximum), a), b));
            return;
        }
        // Not fused: the largest score's exponent is exactly 0.
        const Vec shift = kJob == Job::exponential ? Simd::set1(args_.shift[row_]) : Simd::zero();
        const Vec factor = Simd::set1(args_.factor);
        a = Operand::power(Operand::exponent(a, shift, factor));
        b = Operand::power(Operand::exponent(b, shift, factor));
        if constexpr (kJob == Job::exponential) {
            float* sums = args_.sums + row_ * kWidth;
            _mm512_storeu_ps(sums, Simd::add(Simd::add(Simd::load(sums), a), b));
        } else {
            _mm512_storeu_ps(source, a);
            _mm512_storeu_ps(source + kWidth, b);
        }
        Operand::store_weights(args_.target, row_, a, b);
    }

    void next_panel() {
        if constexpr (kJob == Job::multiply) {
            gradients_.finish(args_, rows_);
            args_.target += kScorePanel;
            args_.along += Operand::kWeightPanel;
            args_.across += Operand::kWeightPanel;
        } else if constexpr (kJob != Job::row_maximum) {
            args_.target += Operand::kWeightPanel;
        }
        args_.source += kScorePanel;
        row_ = 0;
    }

    JobArgs args_;  // of the panel at hand
    std::int64_t rows_;
    std::int64_t row_ = 0;
    std::int64_t left_;
    std::int64_t turns_;
    std::int64_t total_;
    std::int64_t owed_ = 0;  // rows times turns
    Gradients gradients_;
};

template <typename Operand>
class Work<Operand, Job::none> {
public:
    Work(const JobArgs&, std::int64_t, std::int64_t) {}
    void turn() {}
    void advance(std::int64_t) {}
    void finish() {}
};

template <typename Operand, Job kJob>
void run_alone(std::int64_t count, const JobArgs& args) {
    Work<Operand, kJob>(args, kJob == Job::multiply ? (count + 1) / 2 * 2 : count, 1).finish();
}

/// TileKernels::run.
template <typename Operand>
void run_on_vectors(Job job, std::int64_t count, const JobArgs& args) {
    if (job == Job::row_maximum) return run_alone<Operand, Job::row_maximum>(count, args);
    if (job == Job::exponential) return run_alone<Operand, Job::exponential>(count, args);
    if constexpr (Operand::kBackward) {
        if (job == Job::exp_plain) return run_alone<Operand, Job::exp_plain>(count, args);
        if (job == Job::multiply) return run_alone<Operand, Job::multiply>(count, args);
    }
    assert(job == Job::none);
}

}  // namespace
