/// @file
/// A weight matrix in the order in which dense products read it.
#pragma once

#include <attend/core/tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace attend {

/// Options of PackedMatrix.
struct PackOptions {
    DType dtype = DType::float32;  ///< what is kept: float32, bfloat16 (rounded to nearest even) or int8
    bool transposed = false;  ///< the weight is [in, out] (x W) instead of [out, in] (x W^T, as torch.nn.Linear has it)
    /// int8: what one step is worth, for all columns (W / scale is rounded to nearest even, within [-127, 127]).
    /// Without it each column's largest magnitude is 127 steps.
    std::optional<float> scale = {};
    /// Called when some megabytes more of the weight were packed and are not read again: who mapped them from a file
    /// can let them go.
    std::function<void()> part_done = {};
};

/// The weight W of y = x W^T, packed once: `out` columns of y, `in` numbers deep, as float32, bfloat16 or int8.
///
/// The packed bytes are one image (header, scales, panels of 32 columns) that is the same on every processor: it can be
/// stored in a file and mapped, see image() and from_image(). Copies share it.
class PackedMatrix {
public:
    /// Without elements: [0, 0].
    PackedMatrix();
    /// Packs `weight`, [out, in] or, transposed, [in, out]: float32, bfloat16, float16 or float64, any strides.
    /// Parallel; one pass over the elements, two for int8. @throws ShapeError, DTypeError, ValueError
    explicit PackedMatrix(const TensorView& weight, const PackOptions& options = {});
    /// Shares what the other has.
    PackedMatrix(const PackedMatrix&) = default;
    /// Moving copies: none sees an image that it does not own.
    PackedMatrix& operator=(const PackedMatrix&) = default;
    ~PackedMatrix() = default;

    /// From int8 numbers and what they are worth: W = weight * scales. @param weight int8, [out, in] or, transposed,
    /// [in, out] @param scales floating, [out] or [1] @throws ShapeError, DTypeError, ValueError
    static PackedMatrix quantized(const TensorView& weight, const TensorView& scales, bool transposed = false);
    /// Over an image that stays where it is, for instance in a mapped file. @param image as image() returned it,
    /// aligned to 64 @param owner keeps it alive; may be null @throws ValueError when it is none, or truncated
    static PackedMatrix from_image(std::span<const std::byte> image, std::shared_ptr<const void> owner);

    /// Columns of y.
    std::int64_t out_features() const noexcept;
    /// Numbers in a row of x.
    std::int64_t in_features() const noexcept;
    /// float32, bfloat16 or int8.
    DType dtype() const noexcept;
    /// All there is, in one piece.
    std::span<const std::byte> image() const noexcept;

    /// Some columns of y in the order given, as another matrix: the vocabulary's shortlist. The columns' bits are the
    /// same; packed lanes are copied, one cache line for each. @throws ValueError for an index out of range
    PackedMatrix select(std::span<const std::int64_t> columns) const;
    /// Row `column` of the weight, [in] float32: an embedding that is tied to the output. @throws ValueError
    Tensor row(std::int64_t column) const;
    /// The weight as the products see it, float32 [out, in].
    Tensor unpack() const;
    /// Of int8: its integers, [out, in], and what they are worth, float32 [out]: what quantized() takes.
    /// @throws DTypeError of others
    std::pair<Tensor, Tensor> integers() const;

private:
    static PackedMatrix make(const TensorView& weight, const TensorView* scales, const PackOptions& options);
    void adopt(std::span<const std::byte> image, std::shared_ptr<const void> owner);

    std::shared_ptr<const void> owner_;
    std::span<const std::byte> image_;
};

}  // namespace attend
