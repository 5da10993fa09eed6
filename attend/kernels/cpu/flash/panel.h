/// @file
/// One panel of scores after its product: modifiers, masks. Forward and backward finish their panels here, so that they
/// see the same numbers.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace attend::kernels::cpu::flash {

/// Rows and columns of a panel, counted within the sequence.
struct PanelPosition {
    std::int64_t head = 0;         ///< of the query
    std::int64_t query_begin = 0;  ///< first query
    std::int64_t query_count = 0;  ///< queries
    std::int64_t key_begin = 0;    ///< first key
    std::int64_t key_count = 0;    ///< keys
};

/// Whether products need more than a factor to become logits.
bool has_modifiers(const AttentionProblem& problem, const TileKernels& kernels);

/// What all panels of a problem have in common.
class PanelRules {
public:
    /// @param problem,sequence must outlive this
    PanelRules(const AttentionProblem& problem, const Sequence& sequence, const TileKernels& kernels);

    /// Whether products need more than a factor to become logits: modify() then does it.
    bool has_modifiers() const { return has_modifiers_; }
    /// Whether backward calls change_gradients().
    bool has_gradients() const { return problem_.changes_gradients(); }
    /// Whether anything but positions masks.
    bool has_masks() const { return !problem_.allowed.empty() || has_blocks(); }
    /// Whether masks by blocks do.
    bool has_blocks() const { return !problem_.blocks.empty(); }
    /// Whether positions hide none of the panel's pairs.
    bool positions_full(const PanelPosition& position) const;
    /// Whether some query of the panel sees some key of it, as far as tensors and blocks mask; of a partial block no
    /// more is asked.
    bool any_visible(const PanelPosition& position) const;
    /// The same of blocks alone.
    bool any_block(const PanelPosition& position) const;

    /// Whether a query sees a key.
    bool visible(std::int64_t head, std::int64_t query, std::int64_t key) const;

    /// Products to logits times log2(e), in place. @param start null, or added for each column @param derivative null,
    /// or receives the soft cap's (backward) @param raw null, or receives the scores before the score function changes
    /// them, where it has gradients
    /// @param transposed the panel has keys as rows
    void modify(const PanelPosition& position, bool transposed, const float* start, float* derivative, float* raw,
                float* panel) const;
    /// The score function's gradients, of a transposed panel: dS with respect to changed scores becomes that with
    /// respect to `raw`, which loses the scores of pairs without a gradient.
    void change_gradients(const PanelPosition& position, std::int64_t slot, float* raw, float* grads) const;
    /// Asks for what modify() and mask() will read of tensors at a position. Their rows lie far apart, so that the
    /// processor does not foresee them.
    void prefetch(const PanelPosition& position) const;
    /// Hidden pairs, and columns beyond the position, become -inf.
    void mask(const PanelPosition& position, bool transposed, float* panel) const;

private:
    /// A bias or mask at the sequence's first pair in head 0, with strides in elements: what of its address all panels
    /// have in common.
    struct Source {
        const std::byte* data;
        DType dtype;
        std::int64_t element_bytes;
        std::int64_t head_stride;
        std::int64_t row_stride;
        std::int64_t column_stride;
    };

    MaskRange range_of(const PanelPosition& position) const;
    Source source_of(const TensorView& view) const;
    static PanelSource at(const Source& source, const PanelPosition& position, bool transposed);

    const AttentionProblem& problem_;
    const Sequence& sequence_;
    const TileKernels& kernels_;
    bool has_modifiers_;
    std::optional<Source> bias_;
    std::vector<Source> allowed_;
};

}  // namespace attend::kernels::cpu::flash
