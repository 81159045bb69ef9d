"""Memory of batches is used again only when nobody can see it any more."""

import threading

import torch

from diffse.data.buffers import Buffers

SHAPE = (2, 3, 4)


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_what_is_held_in_any_way_is_not_given_out_again():
    buffers = Buffers()
    holds = (
        lambda tensor: tensor,
        lambda tensor: tensor[1],
        lambda tensor: tensor.unbind(0)[0],
        lambda tensor: tensor[0].numpy(),
        lambda tensor: torch.view_as_real(tensor)[..., 0].mT,
        lambda tensor: tensor.clone,
    )
    for hold in holds:
        tensor = buffers.take(SHAPE)
        taken, held = place(tensor), hold(tensor)
        del tensor
        others = [buffers.take(SHAPE) for _ in range(5)]
        assert taken not in map(place, others)
        del held, others
        assert taken in [place(tensor) for tensor in [buffers.take(SHAPE) for _ in range(7)]]


def test_what_is_dropped_is_used_again_and_only_in_its_shape():
    buffers = Buffers()
    first = place(buffers.take(SHAPE))
    assert place(buffers.take(SHAPE)) == first
    assert place(buffers.take((3, 2, 4))) != first
    assert buffers.take(SHAPE).dtype == torch.complex64


def test_no_more_than_a_few_are_remembered():
    buffers = Buffers(kept=3)
    held = [buffers.take(SHAPE) for _ in range(10)]
    assert len({place(tensor) for tensor in held}) == 10
    del held
    assert len(buffers._arrays) == 3


def test_threads_never_share_one():
    buffers, wrong = Buffers(), []

    def work(number: int) -> None:
        for _ in range(300):
            tensor = buffers.take((50,))
            tensor.fill_(number)
            if not (tensor == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
