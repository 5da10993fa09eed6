#pragma once

namespace attend::apps {

/// Puts the heap that the process grows into on pages of 2 MB, where the C library and the system have such. Opening a
/// vocabulary makes some 30 MB of small blocks: 4,000 pages of 4 KB, whose faults cost as much as a quarter of loading.
/// Advice only: elsewhere, and where it is refused, the heap is as it was. To be called before other threads start.
void prepare_heap();

}  // namespace attend::apps
