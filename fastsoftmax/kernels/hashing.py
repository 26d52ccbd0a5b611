"""The only place that hashes words: 64 bits of our own, the same on every machine.

A hash h takes in x (a byte, or another hash) as h <- (h xor x) MULTIPLIER, modulo 2^64, and is
finished by Murmur3's mixer (Appleby 2011), so that each of its bits depends on all of x. Of
b = `bits` bits, the top b are an index, the next one a sign, and the others tell apart what has the
same index. Numbers are int64, of which the bits count.
"""

from __future__ import annotations

from llvmlite import ir

from fastsoftmax.kernels.compile import EXACT, kernel, word
from fastsoftmax.kernels.later import types

VERSION = 1  # of all that is said here: another one is other features
# What the hashes of words, of characters and of further words of an n-gram begin with.
OF_WORD, OF_CHARACTERS, APART, TOGETHER = 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85, 1, 2
MULTIPLIER = 0x2127599BF4325C37
_MIXERS = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_MODULO = 2**64


def _signed(value):
    value %= _MODULO
    return value - _MODULO if value >= _MODULO // 2 else value


def _constant(value):
    return ir.Constant(ir.IntType(64), _signed(value))


@word(lambda h, x: _signed((int(h) ^ int(x)) * MULTIPLIER))
def absorb(typing_context, h, x):
    """Return the hash h after it took in x."""

    def build(context, builder, signature, arguments):
        return builder.mul(builder.xor(*arguments), _constant(MULTIPLIER))

    return types.int64(types.int64, types.int64), build


def _finish_twin(h):
    h = int(h) % _MODULO
    for multiplier in _MIXERS:
        h = (h ^ h >> 33) * multiplier % _MODULO
    return _signed(h ^ h >> 33)


@word(_finish_twin)
def finish(typing_context, h):
    """Return the hash h once it took in all."""

    def build(context, builder, signature, arguments):
        (value,) = arguments
        shift = _constant(33)
        for multiplier in _MIXERS:
            value = builder.xor(value, builder.lshr(value, shift))
            value = builder.mul(value, _constant(multiplier))
        return builder.xor(value, builder.lshr(value, shift))

    return types.int64(types.int64), build


@kernel(EXACT)
def index_of(h, bits):
    """Return the index that a finished hash is, of so many bits."""
    return (h >> (64 - bits)) & ((1 << bits) - 1)


@kernel(EXACT)
def sign_of(h, bits):
    """Return the sign, 1 or -1, of what a finished hash stands for."""
    return 1 - 2 * ((h >> (63 - bits)) & 1)


@kernel(EXACT)
def check_of(h, bits):
    """Return what tells a finished hash from others of the same index and sign."""
    return h & ((1 << (63 - bits)) - 1)
