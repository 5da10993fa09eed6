// The worker: one JSON object a line in, one out.
#pragma once

#include <iosfwd>
#include <string>

namespace attend::benchmark {

/// Answers requests to a contestant in C++, "attend" or a peer, until `in` ends. benchmarks/README.md has the protocol.
/// @throws std::invalid_argument for a workload that does not have it
void work(const std::string& workload, const std::string& contestant, std::istream& in, std::ostream& out);

}  // namespace attend::benchmark
