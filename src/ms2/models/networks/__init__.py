"""Sequence networks of the structure model: LSTM, GRU and a causal Transformer."""

from ms2.models.networks.base import SequenceNetwork, State
from ms2.models.networks.recurrent import GRU, LSTM
from ms2.models.networks.transformer import Transformer

__all__ = ["GRU", "LSTM", "SequenceNetwork", "State", "Transformer"]
