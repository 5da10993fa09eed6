/// @file
/// Tensors as text, in the way PyTorch prints them: one notation for all elements, chosen by their range, columns of
/// one width, lines of at most 80 characters, and only the edges of large tensors.
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

namespace attend {

/// Options of to_string; the defaults are PyTorch's.
struct PrintOptions {
    int precision = 4;                    ///< digits after the point
    std::int64_t threshold = 1000;        ///< tensors of more elements are summarized
    std::int64_t edge_items = 3;          ///< elements shown at both ends of each dimension of a summary
    int line_width = 80;                  ///< where lines are broken; summaries may be longer
    std::optional<bool> scientific = {};  ///< 1.0000e-05; chosen by the elements when not given
    std::string dtype_prefix = {};        ///< written before a dtype's name: "torch." makes it PyTorch's text
};

/// "tensor([[1.0000, 2.5000]])", with `dtype=...` unless it is float32, int64 or bool, and `size=...` for empty shapes
/// of more than one dimension. Scientific notation is chosen when the largest and the smallest magnitude other than 0
/// differ by more than 1000 times, or lie above 1e8 or below 1e-4.
std::string to_string(const TensorView& view, const PrintOptions& options = {});

/// Writes to_string(view).
std::ostream& operator<<(std::ostream& stream, const TensorView& view);
/// Writes to_string(tensor).
std::ostream& operator<<(std::ostream& stream, const Tensor& tensor);

}  // namespace attend
