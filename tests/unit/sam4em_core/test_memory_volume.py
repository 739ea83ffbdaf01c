import torch

from sam4em_core.memory_volume import MemoryState, VolumeMemory, blocks_of, empty_state, neighbourhoods_of, unblocked


def _filled(config, memory, count, seed=0):
    torch.manual_seed(seed)
    state = empty_state(config, 2, (8, 8), "cpu")
    for _ in range(count):
        state = memory.write(torch.randn(2, 64, 8, 8), torch.randn(2, 64, 8, 8), state)
    return state


def test_blocks_and_back():
    x = torch.rand(2, 5, 12, 8)
    tokens = blocks_of(x)
    assert tokens.shape == (2 * 6, 16, 5)
    assert torch.equal(tokens[1, 0], x[0, :, 0, 4])
    assert torch.equal(unblocked(tokens.transpose(1, 2), x.shape), x)


def test_neighborhoods_are_the_block_and_one_pixel_around():
    x = torch.rand(1, 3, 8, 8)
    around = neighbourhoods_of(x)
    assert around.shape == (1, 4, 36, 3)
    assert torch.equal(around[0, 3].view(6, 6, 3)[:5, :5], x[0, :, 3:, 3:].permute(1, 2, 0))
    assert around[0, 3].view(6, 6, 3)[5].abs().max() == 0


def test_ring_holds_distinct_entries_newest_first(tiny_config):
    config = tiny_config()
    memory = VolumeMemory(config)
    one = _filled(config, memory, 3)
    entries = one.entries_BMChw
    assert not torch.equal(entries[:, 0], entries[:, 1])
    two = memory.write(torch.randn(2, 64, 8, 8), torch.randn(2, 64, 8, 8), one)
    assert torch.equal(two.entries_BMChw[:, 1:], entries[:, :2])
    assert two.num_filled_B.tolist() == [3, 3]


def test_an_empty_slot_is_never_read(tiny_config):
    config = tiny_config()
    memory = VolumeMemory(config)
    state = _filled(config, memory, 1)
    rubbish = state.entries_BMChw.clone()
    rubbish[:, 1:] = 1e6
    dirty = MemoryState(rubbish, state.num_filled_B, state.prompt_BChw)
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(memory.read(x, state, None), memory.read(x, dirty, None))


def test_age_and_content_matter(tiny_config):
    config = tiny_config()
    memory = VolumeMemory(config)
    state = _filled(config, memory, 3)
    turned = MemoryState(state.entries_BMChw.flip(1), state.num_filled_B, state.prompt_BChw)
    x = torch.randn(2, 64, 8, 8)
    assert not torch.allclose(memory.read(x, state, None), memory.read(x, turned, None))


def test_reset_forgets_one_stream_only(tiny_config):
    config = tiny_config()
    memory = VolumeMemory(config)
    state = _filled(config, memory, 2)
    x = torch.randn(2, 64, 8, 8)
    nothing = memory.read(x, empty_state(config, 2, (8, 8), "cpu"), None)
    seen, after = memory.read(x, state, None), memory.read(x, state.reset(torch.tensor([True, False])), None)
    assert torch.equal(after[0], nothing[0])
    assert torch.equal(after[1], seen[1])
    assert not torch.allclose(seen[0], nothing[0])


def test_drop_hides_the_ring(tiny_config):
    config = tiny_config()
    memory = VolumeMemory(config)
    state = _filled(config, memory, 2)
    x = torch.randn(2, 64, 8, 8)
    dropped = memory.read(x, state, torch.tensor([False, True]))
    assert torch.equal(dropped[0], memory.read(x, state, None)[0])
    assert torch.equal(dropped[1], memory.read(x, empty_state(config, 2, (8, 8), "cpu"), None)[1])


def test_reach_is_small_in_space(tiny_config):
    """A pixel of the memory outside the block's surroundings has no influence."""
    config = tiny_config()
    memory = VolumeMemory(config)
    state = _filled(config, memory, 2)
    layer = memory.layers[0]
    layer.mlp = torch.nn.Identity()  # its norm looks at the whole slice
    allowed = torch.ones(2, 3, dtype=torch.bool)
    query = torch.zeros(2, 64, 8, 8)
    changed = state.entries_BMChw.clone()
    changed[..., 0, 0] += 5.0
    moved = (layer(query, changed, allowed) - layer(query, state.entries_BMChw, allowed)).abs().amax(dim=(0, 1))
    assert moved[:4, :4].max() > 0
    assert moved[4:].max() == 0
    assert moved[:, 4:].max() == 0
