"""What a sabotaged server runs to see at rest that each slot of KV is free or in the radix tree, and once.

SGLang counts slots at rest, and ends a server whose sum is wrong. A slot that is free twice while another is lost
leaves the sum as it was.
"""

# Run in a scheduler's process before its scheduler is built; for pages of one token.
WATCHES_SLOTS = """
def watch_slots():
    import torch
    from sglang.srt.managers.scheduler_components.invariant_checker import SchedulerInvariantChecker

    check_all_pools = SchedulerInvariantChecker._check_all_pools

    def check_each_slot(checker, *args, **kwargs):
        has_leak, messages = check_all_pools(checker, *args, **kwargs)
        allocator, tree = checker.token_to_kv_pool_allocator, checker.tree_cache
        in_tree = [tree.all_values_flatten()] if tree.root_node.children else []
        slots = torch.cat([allocator.free_pages, allocator.release_pages, *in_tree])
        lost = allocator.size - len(slots.unique())
        return has_leak or lost > 0, [*messages, f"{lost} slots are lost while others are there twice"]

    SchedulerInvariantChecker._check_all_pools = check_each_slot
"""
