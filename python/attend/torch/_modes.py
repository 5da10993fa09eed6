"""What PyTorch is asked of a call: whether it wants more than numbers."""
import torch
import torch.autograd.forward_ad as forward_ad

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))


def are_plain(query, key, value, *others):
    """Whether all are PyTorch's own tensors (or None, of the others)."""
    return (type(query) in _PLAIN and type(key) in _PLAIN and type(value) in _PLAIN and
            all(x is None or type(x) in _PLAIN for x in others))


def _differentiates():
    """Whether torch.func's transforms or forward mode are at work, which take the derivatives of an operator that has
    none of theirs for zeros."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def differentiates_more():
    """Whether that is forward mode, or gradients of gradients."""
    if torch.compiler.is_compiling() or not _differentiates():
        return False
    kinds = [x.key() for x in torch._C._functorch.get_interpreter_stack() or ()]
    transforms = torch._C._functorch.TransformType
    return forward_ad._current_level >= 0 or transforms.Jvp in kinds or kinds.count(transforms.Grad) > 1


def are_meta(*tensors):
    """Whether all that there are have shapes alone."""
    return all(x is None or x.is_meta for x in tensors)


def is_traced():
    """Whether PyTorch wants to know of a call, in place of its numbers, and of no derivatives by _differentiates()."""
    # Compilers are asked first: they do not know the other questions.
    return torch.compiler.is_compiling() or (
        not _differentiates() and (torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0))


def is_transformed():
    """Whether more is asked for than the numbers in tensors."""
    return is_traced() or _differentiates()


def operator_for_this_call(operator, transformed_function):
    """The operator, which functionalization knows, or what torch.func's other transforms and forward mode know."""
    if torch.compiler.is_compiling() or _functionalizes():
        return operator
    return transformed_function if _differentiates() else operator


def for_any_call(operator, transformed_function):
    """A function that is one or the other, call by call."""
    return lambda *arguments: operator_for_this_call(operator, transformed_function)(*arguments)


def _functionalizes():
    functorch = torch._C._functorch
    return any(x.key() == functorch.TransformType.Functionalize for x in functorch.get_interpreter_stack() or ())


def autocast(*tensors):
    """What PyTorch's autocast gives its attention: float64 and bool stay as they are."""
    dtype = torch.get_autocast_dtype("cpu")
    return (x.to(dtype) if x is not None and x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors)


def wants_gradients(query, key, value, bias):
    return torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad or
                                        (bias is not None and bias.requires_grad))


def refuse_traces():
    """Of calls that a trace would keep as constants."""
    records = torch.jit.is_tracing() or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    if records:
        raise RuntimeError("[flash_attn] expected a call that is not traced, found one that is")


def refuse_tangents(*_):
    """PyTorch would take the tangents of an operator without them for zeros."""
    raise NotImplementedError("[attention] expected gradients in reverse mode, found forward mode (jvp)")


def refuse_forward_mode(*tensors):
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        refuse_tangents()


def refuse_gradients_of_gradients(*_):
    """Or a part of them would be missing."""
    raise RuntimeError("[attention] expected gradients to be differentiated once, found gradients of gradients")
