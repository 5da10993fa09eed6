#pragma once

namespace attend::apps {

/// Puts the heap that the process grows into on pages of 2 MB, where the C library and the system have such. Opening a
/// vocabulary makes some 20 MB of small blocks, whose faults on pages of 4 KB are 6 to 9% of a start
/// (docs/performance.md). Advice only: elsewhere, and where it is refused, the heap is as it was. To be called before
/// other threads start.
void prepare_heap();

}  // namespace attend::apps
