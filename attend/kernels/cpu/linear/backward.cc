#include <attend/kernels/cpu/linear/backward.h>

#include <attend/kernels/cpu/linear/fast.h>

#include <algorithm>

namespace attend::kernels::cpu::linear {

CausalBackward::CausalBackward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                               std::int64_t sequence, std::int64_t kv_head)
    : problem_(problem),
      saved_(saved),
      gradients_(gradients),
      tiles_(tiles_of(problem)),
      kernels_(linear_kernels()),
      index_(sequence),
      sequence_(problem.sequence(sequence)),
      kv_head_(kv_head),
      rows_(tiles_, kernels_, problem, sequence, kv_head),
      transposed_(tiles_, problem.value_dim() + (problem.normalise ? 1 : 0), problem.dim()),
      behind_(static_cast<std::size_t>(gradients.decay ? problem.dim() : 0)),
      decay_(decay_sums(problem, gradients, sequence_, kv_head, behind_.data())) {
    if (!gradients.decay) return;
    const std::int64_t anchors = DecaySums::anchor_count(sequence_.key_count);
    before_.resize(static_cast<std::size_t>(anchors * transposed_.floats()));
    anchors_.resize(static_cast<std::size_t>(anchors * problem.dim()));
    decay_.states = &transposed_;
    decay_.before = before_.data();
    decay_.anchors = anchors_.data();
}

/// The passes there are: that of keys is also that of values where it reads across.
std::span<const CausalBackward::Pass> CausalBackward::passes() const {
    static constexpr Pass kPasses[] = {Pass::query, Pass::key, Pass::value};
    return std::span(kPasses).first(reads_across() ? 2 : 3);
}

ScanOperands CausalBackward::operands(Pass pass, bool with_rows) const {
    const auto extra = [&](Extra kind) { return problem_.normalise ? kind : Extra::none; };
    const auto scale = static_cast<float>(problem_.scale);
    ScanOperands operands;
    if (pass == Pass::query) {
        for (std::int64_t reader = 0; reader < problem_.group() && with_rows; ++reader) {
            operands.x.push_back(rows_.gradient(saved_, reader, scale, extra(Extra::grad_denominator)));
        }
        operands.y.push_back(rows_.value(extra(Extra::ones)));
        operands.z.push_back(rows_.key());
    } else if (with_rows) {
        operands.x.push_back(pass == Pass::key ? rows_.value(extra(Extra::ones)) : rows_.key());
    }
    for (std::int64_t reader = 0; reader < problem_.group() && pass != Pass::query; ++reader) {
        RowLoader query = rows_.query(reader, scale);
        RowLoader gradient =
            rows_.gradient(saved_, reader, 1.0F, pass == Pass::key ? extra(Extra::grad_denominator) : Extra::none);
        operands.y.push_back(pass == Pass::key ? gradient : query);
        operands.z.push_back(pass == Pass::key ? query : gradient);
    }
    if (pass == Pass::key && reads_across() && with_rows) {
        operands.across = rows_.key();
        operands.across_width = problem_.value_dim();
    }
    operands.by_columns = pass != Pass::value;
    operands.reverse = pass != Pass::query;
    operands.own_apart = problem_.decay_kind != Decay::none && pass != Pass::value;
    rows_.describe(operands);
    operands.group_tokens = group_tokens(problem_, index_);
    return operands;
}

/// Where the rows of a pass go.
GradientRows CausalBackward::rows(Pass pass) const {
    const auto rows_of = [&](const MutableTensorView& target, std::int64_t first_head, std::int64_t begin) {
        return GradientRows{.target = target, .batch = sequence_.batch, .first_head = first_head, .begin = begin};
    };
    if (pass == Pass::value) return rows_of(gradients_.value, kv_head_, sequence_.key_begin);
    if (pass == Pass::key) {
        GradientRows rows = rows_of(gradients_.key, kv_head_, sequence_.key_begin);
        rows.features.push_back(rows_.key());
        rows.sign = -1.0F;
        rows.decay = decay_;
        return rows;
    }
    GradientRows rows = rows_of(gradients_.query, rows_.head(0), sequence_.query_begin);
    for (std::int64_t reader = 0; reader < problem_.group(); ++reader) {
        rows.features.push_back(rows_.query(reader, 1.0F));
    }
    rows.decay = decay_;
    return rows;
}

/// The state that a pass begins with.
void CausalBackward::load(Pass pass, Scan& scan) const {
    if (pass == Pass::query) {
        load_transposed(scan.products(), problem_, problem_.initial_state, problem_.initial_normaliser, index_,
                        kv_head_, scan.state());
    } else if (pass == Pass::key) {
        load_transposed(scan.products(), problem_, saved_.grad_state, saved_.grad_normaliser, index_, kv_head_,
                        scan.state());
    } else {
        load_state(kernels_, scan.products(), saved_.grad_state, index_, kv_head_, scan.state());
    }
}

/// What the state says that a pass ends with.
void CausalBackward::store(Pass pass, Scan& scan) const {
    if (pass == Pass::query) {
        if (gradients_.decay) add_behind(scan);
    } else if (pass == Pass::key) {
        for (std::int64_t c = 0; c < problem_.dim() && gradients_.normaliser; ++c) {
            gradients_.normaliser->at<float>({index_, kv_head_, c}) =
                scan.state()[scan.products().index(problem_.value_dim(), c)];
        }
        if (reads_across()) store_transposed(scan.products(), scan.state(), gradients_.state, index_, kv_head_);
    } else {
        store_state(tiles_, scan.products(), scan.state(), gradients_.state, index_, kv_head_);
    }
}

/// What the final state's gradient says of all decays: the sum of dS S over a row. @param scan has S, transposed, but
/// for the last token, which none of them decays
void CausalBackward::add_behind(Scan& scan) const {
    for (std::int64_t c = 0; c < problem_.dim(); ++c) {
        double& sum = decay_.behind[decay_.kind == Decay::scalar ? 0 : c];
        for (std::int64_t e = 0; e < problem_.value_dim() && saved_.grad_state; ++e) {
            sum += saved_.grad_state->item({index_, kv_head_, c, e}) *
                   static_cast<double>(scan.state()[scan.products().index(e, c)]);
        }
        if (!saved_.grad_normaliser) continue;
        sum += saved_.grad_normaliser->item({index_, kv_head_, c}) *
               static_cast<double>(scan.state()[scan.products().index(problem_.value_dim(), c)]);
    }
}

/// Calls `use` with the scan of a pass and where its rows go.
template <typename Use>
void CausalBackward::with_scan(Pass pass, std::span<std::byte> scratch, const Use& use) const {
    Arena arena(scratch);
    auto* features = arena.take<float>(GradientSink::features_floats(tiles_, problem_));
    const ScanOperands all = operands(pass, true);
    Scan scan(tiles_, kernels_, all, arena.rest());
    GradientSink sink(tiles_, kernels_, rows(pass), features);
    if (!all.across) {
        use(scan, sink);
        return;
    }
    KeyValueSink both(std::move(sink), {tiles_, kernels_, rows(Pass::value), nullptr});
    use(scan, both);
}

std::size_t CausalBackward::scratch_bytes() const {
    std::size_t bytes = 0;
    for (const Pass pass : passes()) {
        ScanOperands all = operands(pass, true);
        all.group_tokens = kMaxColumns;
        bytes = std::max(bytes, Scan::bytes(tiles_, all));
    }
    return bytes + arena_bytes<float>(GradientSink::features_floats(tiles_, problem_));
}

void CausalBackward::run(std::span<std::byte> scratch) {
    decay_.clear();
    for (const Pass pass : passes()) {
        with_scan(pass, scratch, [&](Scan& scan, RowSink& sink) {
            load(pass, scan);
            scan.run(sink);
            store(pass, scan);
        });
    }
    finish();
}

std::int64_t CausalBackward::groups() const {
    return Scan::groups(sequence_.key_count, group_tokens(problem_, index_));
}

/// The number that a pass has for the group of those tokens.
std::int64_t CausalBackward::in_order(Pass pass, std::int64_t group) const {
    return pass == Pass::query ? group : groups() - 1 - group;
}

std::int64_t CausalBackward::own_floats() const {
    std::int64_t floats = 0;
    for (const Pass pass : passes()) floats += groups() * Scan::own_floats(tiles_, operands(pass, false));
    return floats;
}

std::int64_t CausalBackward::base_floats() const {
    std::int64_t floats = 0;
    for (const Pass pass : passes()) floats += groups() * Scan::floats(tiles_, operands(pass, false));
    return floats;
}

void CausalBackward::sum_group(std::int64_t group, float* own, std::span<std::byte> scratch) const {
    for (const Pass pass : passes()) {
        const ScanOperands writers = operands(pass, false);
        Scan scan(tiles_, kernels_, writers, scratch);
        scan.own_state(in_order(pass, group), own);
        own += groups() * Scan::own_floats(tiles_, writers);
    }
}

void CausalBackward::scan_groups(const float* own, float* bases, std::span<std::byte> scratch) {
    decay_.clear();
    for (const Pass pass : passes()) {
        with_scan(pass, scratch, [&](Scan& scan, RowSink& sink) {
            load(pass, scan);
            scan.scan_groups(own, bases, sink);
            store(pass, scan);
            own += groups() * Scan::own_floats(tiles_, operands(pass, false));
            bases += groups() * scan.floats();
        });
    }
}

void CausalBackward::group_rows(std::int64_t group, const float* bases, std::span<std::byte> scratch) const {
    for (const Pass pass : passes()) {
        with_scan(pass, scratch, [&](Scan& scan, RowSink& sink) {
            scan.group_rows(in_order(pass, group), bases, sink);
            bases += groups() * scan.floats();
        });
    }
}

}  // namespace attend::kernels::cpu::linear
