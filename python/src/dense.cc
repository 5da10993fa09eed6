#include "arrays.h"
#include "bindings.h"
#include "computing.h"
#include "dtype_names.h"
#include "torch_tensors.h"

#include <attend/core/error.h>
#include <attend/dense/matmul.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <utility>
#include <vector>

namespace attend::python {

namespace {

constexpr const char* kOperation = "matmul";

/// The keywords of products with a PackedMatrix.
struct DenseKeywords {
    nb::object bias, activation, residual, dtype, input_scale;

    /// The first that was given; null where none was.
    const char* given() const {
        for (const auto& [name, object] : {std::pair("bias", &bias),
                                           {"activation", &activation},
                                           {"residual", &residual},
                                           {"dtype", &dtype},
                                           {"input_scale", &input_scale}}) {
            if (!object->is_none()) return name;
        }
        return nullptr;
    }
};

std::string text(nb::handle object, const char* what) {
    std::string name;
    if (nb::try_cast(object, name)) return name;
    throw nb::type_error(
        ("[matmul] expected " + std::string(what) + " to be a str, found " + name_of_type(object)).c_str());
}

Activation activation_of(nb::handle object) {
    const std::string name = text(object, "activation");
    for (int i = 0; i < kActivations; ++i) {
        if (name == name_of(static_cast<Activation>(i))) return static_cast<Activation>(i);
    }
    throw ValueError(
        kOperation, "expected activation of 'none', 'relu', 'gelu', 'gelu_tanh', 'silu', 'sigmoid' or 'tanh', found '" +
                        name + "'");
}

double number(nb::handle object, const char* what) {
    double value = 0.0;
    if (nb::try_cast(object, value)) return value;
    throw nb::type_error(
        ("[matmul] expected " + std::string(what) + " to be a number, found " + name_of_type(object)).c_str());
}

/// A view that has elements, which the library takes for one that was given.
TensorView given_view(const Array& array, const char* what, std::int64_t wanted) {
    if (array.view().numel() == 0 && wanted > 0) {
        throw ValueError(kOperation, std::string("expected ") + what + " of " + std::to_string(wanted) +
                                         " numbers, found " + to_string(array.view().shape()));
    }
    return array.view();
}

nb::object packed_product(nb::object a, const PackedMatrix& weight, const DenseKeywords& keywords, nb::object out) {
    const Array x(a, kOperation, "a");
    expect_numbers_alone({a, keywords.bias, keywords.residual}, kOperation);
    const Family family = family_of(a);
    if (x.view().rank() == 0) matmul(x.view(), weight);  // says what is wrong
    Shape shape = x.view().shape();
    shape[shape.rank() - 1] = weight.out_features();
    DenseOptions options;
    std::optional<Array> arrays[2];
    if (!keywords.bias.is_none()) {
        options.bias = given_view(arrays[0].emplace(keywords.bias, kOperation, "bias"), "bias", weight.out_features());
    }
    if (!keywords.residual.is_none()) {
        options.residual =
            given_view(arrays[1].emplace(keywords.residual, kOperation, "residual"), "residual", shape.numel());
    }
    if (!keywords.activation.is_none()) options.activation = activation_of(keywords.activation);
    if (!keywords.input_scale.is_none()) options.input_scale = number(keywords.input_scale, "input_scale");
    std::optional<Array> target;
    if (!out.is_none()) target.emplace(out, kOperation, "out");
    DType dtype = target ? target->view().dtype() : x.view().dtype();
    if (!keywords.dtype.is_none()) {
        dtype = dtype_of(text(keywords.dtype, "dtype"), {DType::float32, DType::bfloat16, DType::float16}, kOperation);
    }
    if (!is_floating(dtype) || dtype == DType::float64) {
        throw DTypeError(kOperation,
                         "expected a result of float32, bfloat16 or float16, found " + std::string(name_of(dtype)));
    }
    std::vector<TensorView> read{x.view()};
    for (const std::optional<Array>& array : arrays) {
        if (array) read.push_back(array->view());
    }
    const NewArray result =
        target ? given_array(std::move(out), *target, kOperation, shape, dtype, read) : new_array(family, shape, dtype);
    {
        const Computing computing;
        matmul_into(x.view(), weight, result.view, options);
        result.finish();
    }
    return result.object;
}

nb::object run_matmul(nb::object a, nb::object b, const DenseKeywords& keywords, nb::object out) {
    if (nb::isinstance<PackedMatrix>(b)) return packed_product(a, nb::cast<const PackedMatrix&>(b), keywords, out);
    const Array left(a, kOperation, "a");
    const Array right(b, kOperation, "b");
    if (const char* name = keywords.given()) {
        throw ValueError(kOperation,
                         std::string("expected ") + name + " with a PackedMatrix alone, found it with an array");
    }
    std::optional<Array> target;
    if (!out.is_none()) target.emplace(out, kOperation, "out");
    Tensor product;
    {
        const Computing computing;
        product = matmul(left.view(), right.view());
    }
    if (!target) return as_array(std::move(product), family_of(a));
    const NewArray result = given_array(std::move(out), *target, kOperation, product.shape(), product.dtype(), {});
    {
        const Computing computing;
        result.view.copy_from(product);
    }
    return result.object;
}

}  // namespace

void bind_dense(nb::module_& module) {
    using nb::arg;
    module.def(
        "matmul",
        [](nb::object a, nb::object b, nb::object bias, nb::object activation, nb::object residual, nb::object dtype,
           nb::object input_scale, nb::object out) {
            return run_matmul(a, b, {bias, activation, residual, dtype, input_scale}, out);
        },
        arg("a"), arg("b"), nb::kw_only(), arg("bias") = nb::none(), arg("activation") = nb::none(),
        arg("residual") = nb::none(), arg("dtype") = nb::none(), arg("input_scale") = nb::none(),
        arg("out") = nb::none(),
        R"(a b, as numpy.matmul; or activation(a W^T + bias) + residual, where b is a PackedMatrix of W.

Of two arrays [..., m, k] times [..., k, n], both float32, float64, bfloat16 or float16: leading dimensions are
broadcast, vectors are matrices of one row or column; other keywords than out are refused.

With a PackedMatrix a is [..., in] of float32, bfloat16 or float16, and the result [..., out]. bias: floating [out].
activation: 'relu', 'gelu', 'gelu_tanh', 'silu', 'sigmoid', 'tanh' or 'none'. residual: floating, of the result's shape.
dtype of the result: 'float32', 'bfloat16' or 'float16'; a's unless given. input_scale: what one step of a is worth,
with int8 weights; without it each row's largest magnitude is 127 steps. A row's bits do not depend on other rows.

out: where the result goes, of its shape, which may be what is read; with a PackedMatrix it is contiguous or a matrix of
contiguous rows. Returns an array of the kind of a, or out. Raises ValueError for shapes and values,
TypeError for types.

>>> import numpy, attend
>>> attend.matmul(numpy.eye(2, dtype=numpy.float32), numpy.ones((2, 3), numpy.float32)).shape
(2, 3)
>>> weight = attend.PackedMatrix(numpy.eye(2, dtype=numpy.float32))
>>> attend.matmul(numpy.float32([[1, -2]]), weight, bias=numpy.float32([0, 1]), activation="relu")
array([[1., 0.]], dtype=float32)
)");

    module.def(
        "matmul_backward",
        [](nb::object grad_output, nb::object x, const PackedMatrix& weight_transposed) {
            const Array gradient(grad_output, "matmul_backward", "grad_output");
            const Array rows(x, "matmul_backward", "x");
            refuse_traces({grad_output, x}, "matmul_backward");
            DenseGradients gradients;
            {
                const Computing computing;
                gradients = matmul_backward(gradient.view(), rows.view(), weight_transposed);
            }
            const Family family = family_of(x);
            return matmul_gradients_type()(as_array(std::move(gradients.x), family),
                                           as_array(std::move(gradients.weight), family),
                                           as_array(std::move(gradients.bias), family));
        },
        arg("grad_output"), arg("x"), arg("weight_transposed"),
        R"(Gradients of y = x W^T + bias from that of y: a named tuple (x, weight, bias).

grad_output: [..., out], x: [..., in], both float32, bfloat16 or float16. weight_transposed: PackedMatrix(W,
transposed=True) of W [out, in], float32 or bfloat16. The gradient of x has its shape and type; those of the weight
[out, in] and the bias [out] are float32. Raises ValueError for shapes, TypeError for types.

>>> import numpy, attend
>>> x, weight = numpy.ones((2, 4), numpy.float32), numpy.ones((3, 4), numpy.float32)
>>> grad_output = numpy.ones((2, 3), numpy.float32)
>>> gradients = attend.matmul_backward(grad_output, x, attend.PackedMatrix(weight, transposed=True))
>>> gradients.x[0], gradients.weight.shape, gradients.bias
(array([3., 3., 3., 3.], dtype=float32), (3, 4), array([2., 2., 2.], dtype=float32))
)");
}

}  // namespace attend::python
