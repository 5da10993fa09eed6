#include "bindings.h"
#include "computing.h"
#include "torch_tensors.h"

#include <attend/attention/attention.h>
#include <attend/core/error.h>

#include <array>
#include <optional>

namespace attend::python {

namespace {

/// Functions of PyTorch's that say whether it wants more of a call than numbers. Asked from here in half the time.
class Questions {
public:
    explicit Questions(nb::handle functions) {
        for (nb::handle function : functions) functions_.push_back(nb::borrow(function));
    }
    bool any_is_true() const {
        for (const nb::object& function : functions_) {
            const nb::object answer = nb::steal(PyObject_CallNoArgs(function.ptr()));
            if (!answer.is_valid()) throw nb::python_error();
            if (PyObject_IsTrue(answer.ptr()) != 0) return true;
        }
        return false;
    }

private:
    std::vector<nb::object> functions_;
};

bool is_number(nb::handle object) {
    return object.is_none() || PyFloat_CheckExact(object.ptr()) != 0 || PyLong_CheckExact(object.ptr()) != 0;
}

/// Whether PyTorch's semantics ask nothing of shapes but what attend does: of one batch and, without groups, as many
/// heads.
bool fit(const TensorView& query, const TensorView& key, const TensorView& value, bool grouped) {
    return query.rank() == 4 && key.rank() == 4 && value.rank() == 4 && query.size(0) == key.size(0) &&
           query.size(0) == value.size(0) && key.size(1) == value.size(1) && (grouped || query.size(1) == key.size(1));
}

/// Whether PyTorch takes the mask for such a query.
bool masks(const TensorView& mask, const TensorView& query) {
    return mask.rank() <= 4 &&
           (mask.dtype() == DType::boolean || mask.dtype() == DType::float32 || mask.dtype() == query.dtype());
}

/// Whether PyTorch would take its flash attention for tensors that fit. Results of its other are contiguous.
bool are_for_flash(const TensorView& query, const TensorView& key, const TensorView& value,
                   const std::optional<Array>& mask, nb::handle mask_object) {
    const bool rows = query.stride(3) == 1 && key.stride(3) == 1 && value.stride(3) == 1;
    return rows && query.size(2) > 0 && key.size(2) > 0 && query.size(3) == value.size(3) &&
           (!mask || ((mask->view().rank() == 2 || mask->view().rank() == 4) && !requires_grad(mask_object)));
}

/// PyTorch's function for plain tensors of four dimensions, where nothing but numbers is asked for; True where
/// gradients are too and PyTorch would take its flash attention, None elsewhere.
nb::object plain_attention(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, nb::handle is_causal,
                           nb::handle scale, nb::handle enable_gqa, const Questions& questions,
                           nb::handle flash_enabled, nb::handle grad_enabled) {
    const std::array<nb::handle, 4> tensors{query, key, value, mask};
    const std::size_t count = mask.is_none() ? 3 : 4;
    for (std::size_t i = 0; i < count; ++i) {
        if (!is_torch(tensors[i]) || !is_plain_torch(tensors[i])) return nb::none();
    }
    if (PyBool_Check(is_causal.ptr()) == 0 || PyBool_Check(enable_gqa.ptr()) == 0 || !is_number(scale))
        return nb::none();
    const bool causal = is_causal.ptr() == Py_True;
    const bool grouped = enable_gqa.ptr() == Py_True;
    if ((causal && count == 4) || questions.any_is_true() || !nb::cast<bool>(flash_enabled())) return nb::none();
    std::array<std::optional<Array>, 4> arrays;
    try {
        for (std::size_t i = 0; i < count; ++i) arrays[i].emplace(tensors[i], "attention", "tensor");
    } catch (const nb::builtin_exception&) {
        return nb::none();  // nested, sparse, on another device: said by what is called then
    } catch (const ShapeError&) {
        return nb::none();  // more dimensions than the library has
    }
    auto& [q, k, v, seen] = arrays;
    if (!fit(q->view(), k->view(), v->view(), grouped) || (seen && !masks(seen->view(), q->view()))) {
        return nb::none();
    }
    const bool flash = are_for_flash(q->view(), k->view(), v->view(), seen, mask);
    if (nb::cast<bool>(grad_enabled())) {
        for (std::size_t i = 0; i < count; ++i) {
            if (requires_grad(tensors[i])) return flash ? nb::object(nb::bool_(true)) : nb::none();
        }
    }
    AttentionOptions options;
    if (causal) options.mask = Mask::causal_top_left();
    if (seen && seen->view().dtype() == DType::boolean) {
        options.mask = Mask::boolean(seen->view());
    } else if (seen) {
        options.bias = seen->view();
    }
    if (!scale.is_none()) options.scale = nb::cast<double>(scale);
    const TensorView& given = q->view();
    const Shape shape{given.size(0), given.size(1), given.size(2), v->view().size(3)};
    const NewArray output =
        flash ? new_torch_array_like(query, given, shape, given.dtype()) : new_torch_array(shape, given.dtype());
    {
        const Computing computing(multiply_adds(given, k->view(), v->view()));
        attention_into({output.view}, q->rows(), k->rows(), v->rows(), options);
    }
    return output.object;
}

}  // namespace

void bind_torch_attention(nb::module_& module) {
    // Asked once, when attend.torch is loaded: functions of PyTorch's without arguments.
    module.def(
        "_plain_attention",
        [](nb::object asked, nb::object flash_enabled, nb::object grad_enabled) {
            const auto* questions = new Questions(asked);  // for ever, as the module
            return nb::cpp_function(
                [questions, flash_enabled, grad_enabled](nb::handle query, nb::handle key, nb::handle value,
                                                         nb::handle mask, nb::handle causal, nb::handle scale,
                                                         nb::handle grouped) {
                    return plain_attention(query, key, value, mask, causal, scale, grouped, *questions, flash_enabled,
                                           grad_enabled);
                },
                nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
                nb::arg().none(), nb::arg().none());
        },
        nb::arg("questions"), nb::arg("flash_enabled"), nb::arg("grad_enabled"));
}

}  // namespace attend::python
