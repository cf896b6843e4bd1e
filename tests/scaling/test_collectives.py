"""Collectives read from texts of XLA, and what rings send."""

import pytest

from scaling import collectives
from scaling.collectives import Collective

HLO = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], f32[16,64])) -> (s32[], f32[16,64]) {
  %state = (s32[], f32[16,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %rows = bf16[16,64]{1,0} get-tuple-element(%state), index=1
  %all-gather.1 = bf16[32,64]{1,0} all-gather(%rows), channel_id=1, replica_groups=[4,2]<=[8], dimensions={0}
  ROOT %next = (s32[], bf16[16,64]{1,0}) tuple(%i, %rows)
}

ENTRY %main (a: f32[10,3], b: f32[6]) -> f32[10,3] {
  %a = f32[10,3]{1,0} parameter(0)
  %b = f32[6]{0} parameter(1)
  %whole = (f32[10,3]{1,0}, /*index=1*/f32[6]{0}) all-reduce(%a, /*index=1*/%b), channel_id=2, replica_groups=mesh['data'=4,'model'=2] {'data'}, to_apply=%add, metadata={op_name="jit(step)/norm/reduce_sum"}
  %part = f32[2,3]{1,0} reduce-scatter(%a), replica_groups={{0,1,2,3,4},{5,6,7}}, dimensions={0}, to_apply=%add
  %start = (f32[6]{0}, f32[6]{0}) collective-permute-start(%b), source_target_pairs={{0,1}}
  %done = f32[6]{0} collective-permute-done(%start)
  %loop = (s32[], f32[16,64]{1,0}) while(%part), condition=%less, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %copy = f32[10,3]{1,0} copy(%a)
}
"""


def test_collectives_of_a_text():
  assert collectives.find(HLO) == [
    Collective('all-gather', 16 * 64 * 2, group=2, times=5),
    Collective('all-reduce', 4 * 36, group=4, op_name='jit(step)/norm/reduce_sum'),
    Collective('reduce-scatter', 4 * 30, group=5),
    Collective('collective-permute', 4 * 6, group=8),
  ]


def test_a_text_without_collectives():
  assert (
    collectives.find('HloModule jit_f\n\nENTRY %main (a: f32[]) -> f32[] {\n}') == []
  )


@pytest.mark.parametrize(
  ('kind', 'sent'),
  [
    ('all-reduce', 2 * 3 / 4 * 1000),
    ('reduce-scatter', 3 / 4 * 1000),
    ('all-gather', 3 * 1000),
    ('all-to-all', 3 / 4 * 1000),
    ('collective-permute', 1000),
  ],
)
def test_what_a_ring_of_four_sends(kind, sent):
  assert collectives.sent_bytes(kind, 1000, 4) == sent
  assert Collective(kind, 1000, 4, times=3).sent_bytes == 3 * sent


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather():
  for group in (1, 2, 8):
    both = collectives.sent_bytes('reduce-scatter', 960, group) + (
      collectives.sent_bytes('all-gather', 960 / group, group)
    )
    assert collectives.sent_bytes('all-reduce', 960, group) == both
