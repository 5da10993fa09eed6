/// @file
/// Attention of a few queries over many keys, as in decoding: keys and values are read once, where they lie, for all
/// queries of a group of heads (Dao et al., "Flash-Decoding", 2023).
///
/// Keys are split at every kSplitKeys from the sequence's first, whatever the number of threads; each split gives a
/// partial result (maximum, sum, O) in float32, and the partial results are merged in order. A whole split is a unit of
/// work, so one sequence with one head of keys keeps all cores busy.
/// Short splits share a unit, and each asks for the keys and values of the next, which the processor does not foresee.
/// Cost: the bytes of keys and values; memory: a partial result for each split.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/decode_kernels.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attend::kernels::cpu::flash {

inline constexpr std::int64_t kDecodeQueries = 4;  ///< queries of a sequence at most
inline constexpr std::int64_t kDecodeRows = 64;    ///< queries times heads of a group at most

/// Rows of keys and values of one head, tokens one after the other.
struct CacheRun {
    const void* keys = nullptr;           ///< row of the first token
    const void* values = nullptr;         ///< the same
    const float* key_scales = nullptr;    ///< of int8 keys, one for each token; null: 1
    const float* value_scales = nullptr;  ///< the same of values
    std::int64_t count = 0;               ///< tokens that follow, the first included
};

/// Where the keys and values of a call lie. Runs end at multiples of 16 tokens, but for the last.
class CacheSource {
public:
    virtual ~CacheSource();
    /// The run that begins at a token, counted among the rows of the whole tensor.
    virtual CacheRun run(std::int64_t batch, std::int64_t kv_head, std::int64_t token) const = 0;

    DType dtype = DType::float32;   ///< of keys and values: float32, bfloat16, float16, int8
    std::int64_t key_stride = 0;    ///< elements from one token to the next
    std::int64_t value_stride = 0;  ///< the same
};

/// Keys and values of the problem's own tensors.
class TensorSource final : public CacheSource {
public:
    /// @param problem must outlive this
    explicit TensorSource(const AttentionProblem& problem);
    CacheRun run(std::int64_t batch, std::int64_t kv_head, std::int64_t token) const override;

private:
    const AttentionProblem& problem_;
};

/// Whether a sequence is computed here: by shapes and options alone, so that it is alone, in a batch and packed.
bool decodes(const AttentionProblem& problem, const Sequence& sequence);

/// The problem's sequences, padding cut off those that would decode without it, so that it does not change their bits:
/// where a sequence has as many queries as rows of keys, those behind its keys are padding. None where nothing is cut.
std::vector<Sequence> cut_short_sequences(const AttentionProblem& problem);

/// One split of one head of keys.
struct Split {
    std::int64_t sequence = 0;  ///< index among the problem's sequences
    std::int64_t kv_head = 0;   ///< head of keys
    std::int64_t begin = 0;     ///< first key, within the sequence
    std::int64_t end = 0;       ///< behind the last
    std::int64_t partial = 0;   ///< place of its result
};

/// The splits of one sequence and head of keys lie together, in order.
struct SplitGroup {
    std::int64_t sequence = 0;  ///< index among the problem's sequences
    std::int64_t kv_head = 0;   ///< head of keys
    std::int64_t begin = 0;     ///< first split
    std::int64_t end = 0;       ///< behind the last
};

/// Splits that one thread computes one after the other, and the groups that are whole by then.
struct DecodeUnit {
    std::int64_t split_begin = 0;  ///< first split
    std::int64_t split_end = 0;    ///< behind the last
    std::int64_t group_begin = 0;  ///< first group to merge
    std::int64_t group_end = 0;    ///< behind the last
};

/// The work of a call.
struct DecodePlan {
    /// @param problem must outlive this @param cache dtype of keys and values
    DecodePlan(const AttentionProblem& problem, DType cache);

    const DecodeKernels& kernels;         ///< what products are computed with
    const TileKernels& tile_kernels;      ///< what panels of scores are modified and masked with
    std::vector<Split> splits = {};       ///< what is computed
    std::vector<SplitGroup> groups = {};  ///< what is merged
    std::vector<DecodeUnit> units = {};   ///< of work
    std::vector<SplitGroup> parted = {};  ///< of groups, those of several splits, which no unit merges
    std::int64_t rows = 0;                ///< queries times heads of a group, at most
    std::int64_t width = 0;               ///< floats of a row of O
    std::int64_t query_dim = 0;           ///< d
    std::int64_t value_dim = 0;           ///< dv

    /// Floats of all partial results.
    std::int64_t partial_floats() const { return static_cast<std::int64_t>(splits.size()) * rows * (width + 2); }
};

/// Bytes of scratch, aligned to 64.
std::size_t decode_scratch(const DecodePlan& plan);

/// The partial results of a unit's splits, and output and log-sum-exp of its groups. @param partials of
/// plan.partial_floats()
void decode(const AttentionProblem& problem, const CacheSource& source, const AttentionOutputs& outputs,
            const DecodePlan& plan, const DecodeUnit& unit, std::span<float> partials, std::span<std::byte> scratch);

/// Merges a group's partial results in order and writes output and log-sum-exp.
void merge(const AttentionProblem& problem, const AttentionOutputs& outputs, const DecodePlan& plan,
           const SplitGroup& group, std::span<const float> partials);

}  // namespace attend::kernels::cpu::flash
