/// @file
/// The inner loops that attention is made of, as one table of functions for each instruction set and operand format.
/// Algorithms (flash/) are written once, with these. An implementation is simd/ (one source, intrinsics); jit/ replaces
/// the products by code assembled at run time.
///
/// Operands are packed so that products read them in order:
///
///     rows     [depth][rows]       the operand of which one number at a time meets a whole vector
///     columns  [depth][columns]    the other: a panel of two vectors
///     panel    [rows][columns]     what their product gives: scores, and after the softmax weights
///
/// In the format `pairs`, two bfloat16 neighbours along depth take the place of one float; depth then counts pairs, and
/// a panel of weights is [rows][columns / 2] floats' worth of pairs. Every element of a product is one accumulator that
/// begins at 0 and runs over depth in order, and is then added to what was there (or a start): the same bits whatever
/// tile it is computed in, and sums of sums, whose rounding grows slower than that of one long chain. On the
/// processor's tiles (AMX) steps are added sixteen at a time and pairs begin with what was there: rows are
/// [rows][depth] there, and see JobArgs::across. In the format `thirds`, also of those tiles, 32 numbers of depth are
/// 48 steps: operands are [32 numbers][third][16 pairs] with rows or columns inside, a panel of weights
/// [third][rows][16 pairs], and a pair are numbers k and k + 16.
#pragma once

#include <attend/core/dtype.h>
#include <attend/kernels/cpu/isa.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu {

inline constexpr int kMaxRows = 32;     ///< rows of a tile at most
inline constexpr int kMaxColumns = 32;  ///< columns of a panel at most
inline constexpr int kRowSlots = 32;    ///< rows of a tile, rounded up to whole vectors of any instruction set
inline constexpr int kThirds = 3;       ///< of Format::thirds
inline constexpr int kMaxWidth = 16;    ///< floats of a vector at most

/// How packed operands are stored.
enum class Format : std::uint8_t {
    floats,  ///< float
    pairs,   ///< two bfloat16 that are multiplied and added to a float at once (vdpbf16ps, tdpbf16ps)
    quads,   ///< four int8, the columns' with 128 added, to an int32 (vpdpbusd); dense products only
    thirds,  ///< three bfloat16 that sum to a float, two floats side by side (tdpbf16ps); attention's forward pass only
};

/// What is done to other panels while a product is computed: woven between its multiply-adds where that pays.
enum class Job : std::uint8_t {
    none,
    row_maximum,  ///< target[rows][width] = max(target, both vectors of source[rows][columns])
    exponential,  ///< target = 2^((source - shift_row) factor), also added to sums[rows][width] (forward)
    exp_plain,  ///< source = 2^(source + shift_column) in place (backward); pairs: 2^(source factor), and target = the
                ///< same rounded
    multiply,   ///< target *= source (backward: P dP); pairs: target * source, rounded, in `along` and `across`
};
inline constexpr int kJobs = 5;  ///< how many there are

/// The panels of a job, contiguous ones. A panel of scores is [rows][columns] of float; one of weights is in the
/// kernels' format.
struct JobArgs {
    float* source = nullptr;       ///< panels of scores
    float* target = nullptr;       ///< see Job; exponential and exp_plain: weights, multiply: scores
    float* sums = nullptr;         ///< [rows][width]
    const float* shift = nullptr;  ///< [rows]; exp_plain of floats: [columns], whole numbers within 2^16, not null
    float* along = nullptr;        ///< [rows][columns / 2]: pairs of neighbours in a row
    float* across = nullptr;       ///< [rows / 2][columns]: pairs of neighbours in a column; AMX: [columns][rows / 2]
    float factor = 1.0F;           ///< of the exponent; floats and thirds have it in their operands
    std::int64_t panels = 0;       ///< how many
};

/// out[rows][columns] = rows^T columns over depth + start.
struct ScoresArgs {
    const float* rows = nullptr;     ///< [depth][rows]
    const float* columns = nullptr;  ///< [depth][columns]
    float* out = nullptr;            ///< [rows][columns]; a half panel fills the other half with -inf
    const float* start = nullptr;    ///< [columns], added at last: in front it would round every partial sum; null: 0
    const float* first = nullptr;    ///< [columns], where sums begin; null: 0. Floats only
    std::int64_t depth = 0;          ///< in steps: numbers, pairs, or thirds of pairs
    std::int64_t panels = 1;  ///< so many, one behind the other: of columns, out and the job's source. More than one,
                              ///< at most TileKernels::panels_together, only of whole panels, without `start` and
                              ///< `first`, and with Job::none or row_maximum, which may be of the panel before
    JobArgs job = {};         ///< one panel for each, where the kernel has a job
};

/// out[rows][columns] += weights columns (fresh: =), over `panels` whole panels and `rest` steps of one more.
struct AccumulateArgs {
    const float* weights = nullptr;  ///< [panel][rows][columns], or pairs
    const float* columns = nullptr;  ///< [step][.], two vectors (half: one) of each step are read
    std::int64_t stride = 0;         ///< bytes from one step of `columns` to the next
    float* out = nullptr;            ///< [rows][columns]
    std::int64_t panels = 0;         ///< whole panels
    std::int64_t rest = 0;           ///< steps of the last panel, whose others hold 0 on tiles
    bool fresh = false;              ///< out is written, not added to
    JobArgs job = {};  ///< job.panels at most `panels`. As many as all panels but one, or as all: panel i is done by
                       ///< the end of the product's panel i, which may read it next. Fewer: by the end of the product.
                       ///< Only Job::exponential and Job::multiply
};

/// out[row][two vectors] += sum over tiles t and steps k of weights[t][k][row] columns[t steps + k]: the product with
/// the transposed panel (gradient of the queries).
struct TransposedArgs {
    const float* weights = nullptr;  ///< [tile][step][columns], at the first row; AMX: [tile][columns][step]
    std::int64_t tile_stride = 0;    ///< bytes from one tile to the next
    std::int64_t steps = 0;          ///< of one tile
    std::int64_t tiles = 0;          ///< how many
    const float* columns = nullptr;  ///< [step][.]
    std::int64_t stride = 0;         ///< bytes from one step of `columns` to the next
    float* out = nullptr;            ///< [row][.]
    std::int64_t out_stride = 0;     ///< bytes from one row of out to the next
};

using ScoresKernel = void (*)(const ScoresArgs*);          ///< see ScoresArgs
using AccumulateKernel = void (*)(const AccumulateArgs*);  ///< see AccumulateArgs
using TransposedKernel = void (*)(const TransposedArgs*);  ///< see TransposedArgs

/// The products of one depth. A kernel is made when it is first asked for and then kept.
class Products {
public:
    virtual ~Products();

    /// Active rows are rounded up to what the implementation has.
    ScoresKernel scores(Job job, int rows, bool half) const {
        return find(scores_[index(job, rows, half)], [&] { return make_scores(job, round_up(rows), half); });
    }
    /// The same.
    AccumulateKernel accumulate(Job job, int rows, bool half) const {
        return find(accumulate_[index(job, rows, half)], [&] { return make_accumulate(job, round_up(rows), half); });
    }
    /// The same.
    TransposedKernel transposed(int rows, bool half) const {
        return find(transposed_[index(Job::none, rows, half)], [&] { return make_transposed(round_up(rows), half); });
    }

protected:
    /// @param row_step kernels exist for multiples of it
    explicit Products(int row_step) : row_step_(row_step) {}
    /// Makes a kernel for `rows` active rows, a multiple of the step.
    virtual ScoresKernel make_scores(Job job, int rows, bool half) const = 0;
    /// The same.
    virtual AccumulateKernel make_accumulate(Job job, int rows, bool half) const = 0;
    /// The same.
    virtual TransposedKernel make_transposed(int rows, bool half) const = 0;

private:
    int round_up(int rows) const { return (rows + row_step_ - 1) / row_step_ * row_step_; }
    std::size_t index(Job job, int rows, bool half) const {
        const auto step = static_cast<std::size_t>((rows + row_step_ - 1) / row_step_ - 1);
        const auto kind = 2 * static_cast<std::size_t>(job) + (half ? 1 : 0);
        return kind * kMaxRows + step;
    }
    template <typename Kernel, typename Make>
    static Kernel find(std::atomic<Kernel>& slot, const Make& make) {
        Kernel kernel = slot.load(std::memory_order_acquire);
        if (kernel == nullptr) {
            kernel = make();
            slot.store(kernel, std::memory_order_release);
        }
        return kernel;
    }

    static constexpr std::size_t kSlots = static_cast<std::size_t>(kJobs) * 2 * kMaxRows;
    int row_step_;
    mutable std::array<std::atomic<ScoresKernel>, kSlots> scores_ = {};
    mutable std::array<std::atomic<AccumulateKernel>, kSlots> accumulate_ = {};
    mutable std::array<std::atomic<TransposedKernel>, kSlots> transposed_ = {};
};

/// Rows of a strided matrix whose last dimension is contiguous.
struct Rows {
    const void* data = nullptr;    ///< first element
    DType dtype = DType::float32;  ///< float32, bfloat16 or float16
    std::int64_t stride = 0;       ///< elements from one row to the next
    std::int64_t count = 0;        ///< rows
    std::int64_t width = 0;        ///< elements of a row
};

/// The same of rows that are written.
struct MutableRows {
    void* data = nullptr;          ///< first element
    DType dtype = DType::float32;  ///< float32, float64, bfloat16 or float16
    std::int64_t stride = 0;       ///< elements from one row to the next
    std::int64_t count = 0;        ///< rows
    std::int64_t width = 0;        ///< elements of a row
};

/// What rows are multiplied with.
struct RowFactors {
    float all = 1.0F;             ///< every row, or
    const float* each = nullptr;  ///< [row]
};

/// A bias or boolean mask over a panel: row r, column j at data + r row_stride + j column_stride (in elements).
struct PanelSource {
    const void* data = nullptr;      ///< of row 0, column 0
    DType dtype = DType::float32;    ///< floating, or boolean
    std::int64_t row_stride = 0;     ///< 0: the same for all rows
    std::int64_t column_stride = 0;  ///< 0: the same for all columns
};

/// What turns the products of a panel into scores.
struct PanelModifiers {
    float scale = 1.0F;                 ///< of the products
    float softcap = 0.0F;               ///< c tanh(x / c); 0: none
    const PanelSource* bias = nullptr;  ///< added; null: none
    float slope = 0.0F;                 ///< ALiBi: - slope |distance + r - j| for row r and column j
    std::int64_t distance = 0;          ///< position of row 0 minus position of column 0
    bool by_columns = false;    ///< rows of the panel are keys, columns queries: distance + j - r, sources transposed
    float unit = 1.442695041F;  ///< of the logits: log2(e), for exponents of 2
    const float* start = nullptr;  ///< [columns], added to the logits at last; null: 0
    float* derivative = nullptr;   ///< [rows][columns]: receives d score / d (scale product), of the soft cap
};

/// out[j][r] += factor panels[r][j]: panels of neighbouring tiles, whose rows follow each other, added to rows of a
/// matrix (gradient of the bias).
struct AddTransposedArgs {
    const float* panels = nullptr;  ///< [tile][rows][columns]
    std::int64_t stride = 0;        ///< floats from one tile to the next
    std::int64_t rows = 0;          ///< of all tiles
    std::int64_t columns = 0;       ///< of a panel; those behind are not read into out
    float factor = 1.0F;            ///< of the panels
    void* out = nullptr;            ///< [columns][rows]
    DType dtype = DType::float32;   ///< of out: float32, or any other floating type, which holds 0 and is written
    std::int64_t out_stride = 0;    ///< elements from one row of out to the next
};

/// The softmax state of a tile of rows, kept over the strips of keys.
struct RowState {
    float* maximum = nullptr;        ///< [kRowSlots], of the logits so far; -inf before any
    float* sums = nullptr;           ///< [rows][width], of the exponentials relative to it, lane by lane
    float* strip_maximum = nullptr;  ///< [rows][width], of the strip at hand
    float* shift = nullptr;          ///< [kRowSlots], what the strip's exponentials are relative to: finite
    float* out = nullptr;            ///< [block][rows][columns], relative to the same
    std::int64_t blocks = 0;         ///< blocks of out
};

/// The functions of one instruction set and format.
struct TileKernels {
    Isa isa = Isa::scalar;           ///< what they are written for
    Format format = Format::floats;  ///< what packed operands hold
    int rows = 0;                    ///< of a tile
    int width = 0;                   ///< floats of a vector
    int columns = 0;                 ///< of a panel: two vectors
    int step_columns = 0;            ///< depth steps that a panel of weights has: columns, half of it, or 3 / 2 of it
    int depth_steps = 1;             ///< the depth of packed operands is a multiple of it; steps behind hold 0
    int panels_together = 1;         ///< panels of scores of one call at most; of thirds 1, see add_infinite_scores
    int sum_keys = 128;  ///< keys (queries, at most) whose products are summed before they are added to what is there

    /// What a thread does before the products of a unit of work, and again where code of others may have run since;
    /// null: nothing.
    void (*begin_products)() = nullptr;
    void (*end_products)() = nullptr;  ///< behind the last

    /// Products over `depth` steps. Lives as long as the program.
    const Products& (*products)(std::int64_t depth) = nullptr;

    // Packing; elements beyond count and width are 0

    /// out[depth][rows] = factor * source; at most `rows` rows. Pairs: factor 1 and bfloat16 only.
    void (*pack_rows)(const Rows& source, float factor, float* out) = nullptr;
    /// out[depth][columns]; at most `columns` rows.
    void (*pack_columns)(const Rows& source, float* out) = nullptr;
    /// out[block of `columns`][step][columns], blocks block_stride floats apart: rows one after the other, or in pairs.
    void (*pack_steps)(const Rows& source, std::int64_t block_stride, float* out) = nullptr;
    /// out[r] = the dot product of row r of both, which have the same shape.
    void (*row_products)(const Rows& a, const Rows& b, float* out) = nullptr;
    /// Rows of blocks [block][row][columns], blocks block_stride floats apart and rows row_stride, times factors.
    void (*unpack_rows)(const float* blocks, std::int64_t block_stride, std::int64_t row_stride,
                        const RowFactors& factors, const MutableRows& out) = nullptr;
    /// False when any element is NaN or infinite.
    bool (*all_finite)(const Rows& source) = nullptr;

    // Panels of scores

    /// Products to logits: score * unit, in place. Panels have [rows][columns], of which `count` rows are worked on.
    void (*modify)(const PanelModifiers& modifiers, std::int64_t count, std::int64_t columns, float* panel) = nullptr;
    /// Row r keeps columns [begin_r, end_r); the others become -inf. Bounds may lie outside of the panel.
    void (*keep_range)(const std::int64_t* begin, const std::int64_t* end, std::int64_t count, float* panel) = nullptr;
    /// Columns below `columns` whose byte is 0 become -inf.
    void (*keep_true)(const PanelSource& allowed, std::int64_t count, std::int64_t columns, float* panel) = nullptr;
    /// A job alone, on `count` rows of its panels.
    void (*run)(Job job, std::int64_t count, const JobArgs& args) = nullptr;
    /// row r, column j of a panel times factors[r * columns + j].
    void (*scale_panel)(const float* factors, std::int64_t count, float* panel) = nullptr;
    /// Dropout in backward, on [rows][columns] of transposed panels: dp = dp factors + start (of the column), then
    /// dp *= p and p *= factors.
    void (*drop_gradients)(const float* factors, const float* start, std::int64_t count, float* p, float* dp) = nullptr;
    /// sums += each of `panels` panels in order, `stride` floats apart, on `count` rows.
    void (*add_panels)(const float* source, std::int64_t stride, std::int64_t panels, std::int64_t count,
                       float* sums) = nullptr;
    /// See AddTransposedArgs.
    void (*add_transposed)(const AddTransposedArgs& args) = nullptr;

    // Softmax of a tile of `count` rows

    /// Takes the strip's maximum over into the state: scales down what was summed relative to a smaller one.
    void (*raise_maximum)(const RowState& state, float factor, std::int64_t count) = nullptr;
    /// out / sum, and log-sum-exp = (maximum factor + log2(sum)) ln 2 in natural units, in
    /// log_sum_exp[kRowSlots]; rows without a sum: 0 and -inf.
    void (*finish_rows)(const RowState& state, float factor, const MutableRows& output, float* log_sum_exp) = nullptr;
};

/// See TileKernels::begin_products.
inline void begin_products(const TileKernels& kernels) {
    if (kernels.begin_products != nullptr) kernels.begin_products();
}

/// Ends what begin_products() began, also where an exception passes.
class EndOfProducts {
public:
    /// @param kernels must outlive this
    explicit EndOfProducts(const TileKernels& kernels) : kernels_(kernels) {}
    ~EndOfProducts() {
        if (kernels_.end_products != nullptr) kernels_.end_products();
    }
    EndOfProducts(const EndOfProducts&) = delete;
    EndOfProducts& operator=(const EndOfProducts&) = delete;

private:
    const TileKernels& kernels_;
};

/// The table for tensors of `dtype` (float32, bfloat16, float16) on active_isa(): pairs for bfloat16 where there are
/// any, else floats. @param wants_floats never pairs
const TileKernels& tile_kernels(DType dtype, bool wants_floats);
/// The same for attention's forward pass: thirds in place of floats where the processor has tiles. @param wants_floats
/// neither pairs nor thirds
const TileKernels& forward_tile_kernels(DType dtype, bool wants_floats);

}  // namespace attend::kernels::cpu
