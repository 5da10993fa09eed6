/// @file
/// Comparisons that tests share.
#pragma once

#include <attend/core/tensor.h>

#include <string>
#include <vector>

namespace attend::testing {

/// All elements as doubles, row-major.
std::vector<double> values(const TensorView& view);

/// Largest |found - want| relative to the largest |want| of its row (last dimension); rows below 1% of the tensor's
/// largest count as that, since a row that nearly vanishes has no scale of its own. Infinite when the two differ in
/// shape or in where they are NaN or infinite.
double row_error(const TensorView& found, const TensorView& want);

/// The same relative to the largest |magnitude| of the row: for sums that may cancel, the sums of their absolute terms.
double row_error(const TensorView& found, const TensorView& want, const TensorView& magnitude);

/// True when both have the same dtype, shape and bits.
bool same_bits(const Tensor& a, const Tensor& b);

/// Every element NaN, so that an element that is not written shows.
void poison(Tensor& tensor);

/// Random normal numbers of any floating dtype.
Tensor normal(const Shape& shape, std::uint64_t seed, DType dtype = DType::float32);

/// true with the given probability.
Tensor random_mask(const Shape& shape, std::uint64_t seed, double probability);

/// The message of the exception that `call` throws as E; an explanation when it throws none or another.
template <typename E, typename Call>
std::string message_of(const Call& call) {
    try {
        call();
    } catch (const E& error) {
        return error.what();
    } catch (const std::exception& error) {
        return std::string("(another exception) ") + error.what();
    }
    return "(no exception)";
}

}  // namespace attend::testing
