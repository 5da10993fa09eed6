/// @file
/// Linear attention in chunks of tokens, in their order or in reverse: the one loop of forward and of all gradients.
///
///     out_i = x_i T_i + sum over j <= i of the chunk of (x_i W_ij . y_j) z_j
///     T = W T + sum_j y_j z_j^T W, for the next chunk
///
/// where T is the state before the chunk. With (x, y, z) = (q, k, v) out is o; with (dO, v, k) it is dQ; in reverse
/// with (v, dO, q) it is dK and with (k, q, dO) dV. A state can be read from its other side as well,
///
///     across_i = T w_i + sum over j of the chunk, from i on, of (w_i . z_j) y_j
///
/// so that the scan of dK gives dV too, w being k: two states are read where one is summed.
///
/// The delta rule's writer has z = u_t = beta_t (z_t - what y_t would read): a triangular system among a chunk's
/// tokens. In reverse it stands beside the queries' writers, without values, and what it writes are the values'
/// gradients (delta_gradients.h).
///
/// A chunk has 16 tokens (32 in AVX-512 where the state is large, 8 in NEON): the products among its tokens cost
/// 2 C (d + dv) operations a token where the state costs 4 d dv, so that C has to be small; less would spend as much on
/// reading and writing the state. Decays multiply operands by products of exp(g), which only shrink: nothing overflows,
/// and exp(-inf) = 0 is a number like any other. Decays of each channel of x and y (forward, dV) or of z (dQ, dK) take
/// the place of the tile products among the chunk's tokens by running products, d C / 2 multiply-adds and as many
/// products a token.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/linear/row_loader.h>
#include <attend/kernels/cpu/linear/state_products.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attend::kernels::cpu::linear {

/// What the delta rule's writer writes, chunk by chunk.
struct DeltaRows {
    BlockRows errors = {};        ///< z - prediction
    BlockRows values = {};        ///< beta times it
    const float* beta = nullptr;  ///< of each row
};

/// Tokens between states that sinks are shown, a multiple of every chunk.
inline constexpr std::int64_t kAnchorTokens = 1024;

/// Where a scan's rows go.
class RowSink {
public:
    virtual ~RowSink() = default;
    /// Rows as take() will have them, but for what each has of its own token, those behind the last token of that one;
    /// only where `own_apart`.
    virtual void take_others(std::int64_t /*reader*/, std::int64_t /*row*/, std::int64_t /*count*/,
                             const BlockRows& /*out*/) {}
    /// Rows [row, row + count) of reader `reader`: `out` may be overwritten. @param denominators x . normaliser, where
    /// the scan has one
    virtual void take(std::int64_t reader, std::int64_t row, std::int64_t count, const BlockRows& out,
                      const float* denominators) = 0;
    /// Rows [row, row + count) of what is read across: `out` may be overwritten.
    virtual void take_across(std::int64_t /*row*/, std::int64_t /*count*/, const BlockRows& /*out*/) {}
    /// Features of the rows that take() is called with next, so that it need not load them.
    virtual void lend(const BlockRows& /*features*/) {}
    /// Rows [row, row + count) of the delta rule's writer, before those of the readers.
    virtual void take_delta(std::int64_t /*row*/, std::int64_t /*count*/, const DeltaRows& /*rows*/) {}
    /// The state that tokens from `token` on (in reverse: before it) meet, at every kAnchorTokens of a group.
    virtual void take_state(std::int64_t /*token*/, const float* /*state*/) {}
    /// Adds where rows will be written.
    virtual void plan(std::int64_t reader, std::int64_t row, std::int64_t count, flash::Prefetch& prefetch) = 0;
};

/// What a scan computes with.
struct ScanOperands {
    std::vector<RowLoader> x = {};         ///< readers: heads whose outputs are asked for
    std::vector<RowLoader> y = {};         ///< writers: heads that add to the state
    std::vector<RowLoader> z = {};         ///< of the same; the delta rule's, the last, may have none: 0
    std::int64_t tokens = 0;               ///< with keys
    std::int64_t rows = 0;                 ///< queries; those behind the last token neither decay nor are hidden
    bool reverse = false;                  ///< from the last token to the first; queries are then writers
    bool normaliser = false;               ///< also sums y, and gives x . sum
    Decay decay = Decay::none;             ///< kind
    bool by_columns = false;               ///< channels of the decay are those of z
    RowSource decays = {};                 ///< g of the tokens
    std::optional<RowSource> beta = {};    ///< the delta rule, of the last writer
    std::optional<RowLoader> across = {};  ///< w, in reverse without decays: also reads the state across; take() is
                                           ///< lent its rows
    std::int64_t across_width = 0;         ///< numbers of y that are then asked for, the first
    bool last_of_tokens = false;    ///< the last reader (in reverse: writer) has rows of tokens in place of queries;
                                    ///< a token does not see itself, but what was before, decayed
    bool own_apart = false;         ///< rows are shown without their own tokens' part first, which is added last; not
                                    ///< in reverse, the last token never enters the state
    std::int64_t group_tokens = 0;  ///< tokens of a group, a multiple of every chunk; 0: not in groups, as the delta
                                    ///< rule has to be, whose state is no sum
};

/// One pass over the tokens of a head.
class Scan {
public:
    /// @param scratch bytes(...) of it, for the life of the scan
    Scan(const TileKernels& tiles, const LinearKernels& kernels, const ScanOperands& operands,
         std::span<std::byte> scratch);

    /// Bytes of scratch.
    static std::size_t bytes(const TileKernels& tiles, const ScanOperands& operands);

    /// The state, zero at first, in the layout of products().
    float* state() { return state_; }
    /// The sum of y, padded to blocks, behind the state in memory.
    float* normaliser() { return state_ + products_.floats(); }
    /// Floats of both.
    std::int64_t floats() const { return products_.floats() + products_.padded_rows(); }
    /// Sizes of the state.
    const StateProducts& products() const { return products_; }

    /// All tokens; the state is then that behind the last, `own_apart` decayed by the last but without it.
    void run(RowSink& sink);

    // In groups of tokens, for threads to share: rows meet the state before the group, decayed, plus the group's own,
    // summed from zero; so that what a group sums does not depend on when the groups before it are done. run() sums
    // groups alike, one after the other. Groups have numbers in the order of the scan: in reverse 0 has the last
    // tokens.

    /// Groups of a scan of `tokens`.
    static std::int64_t groups(std::int64_t tokens, std::int64_t group_tokens) {
        return group_tokens == 0 ? 1 : std::max<std::int64_t>(1, divide_up(tokens, group_tokens));
    }
    /// What a group adds, its own state and then its decays, to own[group]. The operands need no readers.
    void own_state(std::int64_t group, float* own);
    /// The states before each group, to bases[group], from state() and `own` of all; state() is then that behind the
    /// last token. Queries that are no tokens are passed by the way.
    void scan_groups(const float* own, float* bases, RowSink& sink);
    /// The rows of a group from the state before it, bases[group].
    void group_rows(std::int64_t group, const float* bases, RowSink& sink);

    /// Numbers of a state with its normaliser: of bases[group].
    static std::int64_t floats(const TileKernels& tiles, const ScanOperands& operands) {
        return Scan(tiles, linear_kernels(), operands, {}).floats();
    }
    /// Numbers of own[group].
    static std::int64_t own_floats(const TileKernels& tiles, const ScanOperands& operands) {
        const Scan scan(tiles, linear_kernels(), operands, {});
        return scan.floats() + scan.decay_floats();
    }

private:
    struct Writer {
        float* y = nullptr;          // [block][token][columns]
        float* y_decayed = nullptr;  // the same, as it enters the state
        float* y_columns = nullptr;  // [row of y][columns]
        float* z = nullptr;          // [block][token][columns]; null: in place
        float* z_decayed = nullptr;  // the same, where the decay is by columns
        StepBlocks z_steps = {};
        bool finite = true;    // z
        bool y_finite = true;  // y, where it is read across
    };

    template <typename Taker>
    void lay_out(Taker& take);
    std::int64_t decay_floats() const { return std::max(products_.padded_rows(), products_.blocks() * columns_); }
    void steps(std::int64_t begin, std::int64_t end, bool grouped, RowSink& sink);
    void run_group(std::int64_t group, RowSink& sink);
    void add_group(const float* decay, const float* own);
    void step(std::int64_t begin, std::int64_t count, RowSink& sink);
    void pass_rows(std::int64_t begin, std::int64_t count, RowSink& sink);
    void plan_prefetch(std::int64_t begin, RowSink& sink);
    void load_decays(std::int64_t begin, std::int64_t count);
    void load_writer(std::int64_t w, std::int64_t begin, std::int64_t count);
    void pack_writer(const Writer& writer, std::int64_t count) const;
    void decay_writer(Writer& writer, std::int64_t count);
    void solve_delta(std::int64_t begin, std::int64_t count, RowSink& sink);
    const float* meet(std::int64_t first, std::int64_t count, const BlockRows& out);
    void read_tile(std::int64_t reader, std::int64_t begin, std::int64_t first, std::int64_t count, RowSink& sink);
    void weigh(const Writer& writer, std::int64_t first, std::int64_t count);
    void add_weighted(const Writer& writer, std::int64_t first, std::int64_t count, const BlockRows& out);
    void load_across(std::int64_t begin, std::int64_t count);
    void read_across(std::int64_t begin, std::int64_t count, RowSink& sink);
    void add_own(std::size_t reader, std::int64_t first, std::int64_t count, const BlockRows& out);
    bool is_of_tokens(std::size_t which, std::size_t count) const;
    bool hides_own(std::size_t reader, std::size_t writer) const;
    bool keeps_last() const { return operands_.own_apart && !operands_.reverse && operands_.tokens > 0; }
    float* own_weights(std::size_t writer) const { return own_weights_ + static_cast<std::int64_t>(writer) * rows_; }
    void decay_state(const float* factors, float* state) const;
    void update_state(std::int64_t count);
    bool all_finite(const float* rows, std::int64_t blocks, std::int64_t count) const;
    bool is_half() const { return chunk_ <= tiles_.width; }
    ChunkMask mask_at(std::int64_t first) const;
    BlockRows chunk_rows(float* data) const { return {data, chunk_ * columns_, columns_}; }
    BlockRows tile_rows(float* data) const { return {data, rows_ * columns_, columns_}; }

    const TileKernels& tiles_;
    const LinearKernels& kernels_;
    const ScanOperands& operands_;
    std::int64_t columns_;
    std::int64_t rows_;
    StateProducts products_;
    std::int64_t chunk_;            // tokens
    std::int64_t tile_;             // rows of a chunk that are read at once, at most rows_
    bool by_rows_;                  // channels of the decay are those of x and y
    std::int64_t chunk_count_ = 0;  // tokens of the chunk at hand
    float* state_ = nullptr;        // with the normaliser behind it
    float* own_ = nullptr;          // in groups: the sum of a group; else state_
    float* base_ = nullptr;         // in groups: what was before the group, decayed
    float* met_ = nullptr;          // in groups: the sum of both
    float* group_decay_ = nullptr;  // in groups: product of the chunks' decays
    float* read_ = nullptr;         // what rows meet: state_, or met_
    float* written_ = nullptr;      // what the tokens' sums go to: state_, or own_
    float* x_ = nullptr;            // [block][row][columns] of a tile
    float* x_decayed_ = nullptr;    // the same, as it meets the state
    float* out_ = nullptr;          // [block][row][columns] of a tile
    float* panel_ = nullptr;        // [row][columns]
    float* sums_ = nullptr;         // of rows
    float* own_weights_ = nullptr;  // own_apart: [writer][row of a tile]
    float* work_ = nullptr;
    float* factor_ = nullptr;     // exp(g): [token], or [block][token][columns]
    float* prefix_ = nullptr;     // products up to a token
    float* suffix_ = nullptr;     // products behind it
    float* total_ = nullptr;      // of the chunk: [1] or [block][columns]; then for each row of the state
    float* pairs_ = nullptr;      // [token][columns], of scalar decays
    float* predicted_ = nullptr;  // delta rule, then errors: [block][token][columns], room for a whole tile more
    float* among_ = nullptr;      // delta rule: [token][columns], the same
    float* beta_ = nullptr;
    float* w_ = nullptr;             // across: [block of z][token][columns]
    float* w_columns_ = nullptr;     // [row of z][columns]
    float* across_panel_ = nullptr;  // [token j][token i]
    float* across_sums_ = nullptr;   // [row of y][token]
    float* across_ = nullptr;        // [block of y][token][columns]
    std::vector<Writer> writers_;
    Pace pace_;
};

}  // namespace attend::kernels::cpu::linear
