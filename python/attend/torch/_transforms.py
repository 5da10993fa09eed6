"""What torch.func's transforms and forward mode see of an operator: they do not take the gradients of custom ones."""
import functools

import torch


def one_by_one(operator, info, in_dims, *arguments):
    """An operator's rule for vmap: a call for each member of the batch."""
    def members(x, d):
        if d is None:
            return [x] * max(info.batch_size, 1)
        # No batch still has members' shapes.
        return x.unbind(d) if info.batch_size > 0 else [x.new_zeros(x.shape[:d] + x.shape[d + 1:])]
    batches = (members(x, d) for x, d in zip(arguments, in_dims))
    together = tuple(torch.stack(x)[:info.batch_size] for x in zip(*(operator(*member) for member in zip(*batches))))
    return together, (0,) * len(together)


def register_vmap(*operators):
    """one_by_one for custom operators."""
    for each in operators:
        each.register_vmap(functools.partial(one_by_one, each))


def as_autograd_functions(operator, gradients, linear, save_for_backward, backward_by, refuse_second, refuse_tangents):
    """An operator's gradients and the operator, each as a torch.autograd.Function. gradients: its backward's operator, of
    which backward_by makes a backward; linear: which of its arguments the gradients are linear in, all at once;
    save_for_backward: the operator's setup_context; refuse_second and refuse_tangents raise where gradients are
    differentiated once more, and in forward mode elsewhere, in which PyTorch would take tangents that are not there for
    zeros."""

    class Gradients(torch.autograd.Function):

        @staticmethod
        def forward(*arguments):
            return gradients(*arguments)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.set_materialize_grads(False)  # zeros could not be told from tangents
            ctx.inputs = [None if isinstance(x, torch.Tensor) else x for x in inputs]
            ctx.save_for_forward(*(x if isinstance(x, torch.Tensor) else None for x in inputs))

        backward = staticmethod(refuse_second)

        @staticmethod
        def jvp(ctx, *tangents):
            if any(x is not None for i, x in enumerate(tangents) if i not in linear):
                refuse_tangents()
            given = [y if x is None else x for x, y in zip(ctx.saved_tensors, ctx.inputs)]
            for i in linear:
                if given[i] is not None:
                    given[i] = torch.zeros_like(given[i]) if tangents[i] is None else tangents[i]
            return Gradients.apply(*given)

        @staticmethod
        def vmap(info, in_dims, *arguments):
            return one_by_one(Gradients.apply, info, in_dims, *arguments)

    class Transformed(torch.autograd.Function):

        @staticmethod
        def forward(*arguments):
            return operator(*arguments)

        setup_context = staticmethod(save_for_backward)
        backward = staticmethod(backward_by(Gradients.apply))
        jvp = staticmethod(refuse_tangents)

        @staticmethod
        def vmap(info, in_dims, *arguments):
            return one_by_one(Transformed.apply, info, in_dims, *arguments)

    return Gradients, Transformed
