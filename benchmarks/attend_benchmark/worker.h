// The worker: one JSON object a line in, one out.
#pragma once

#include <iosfwd>
#include <string>

namespace attend::benchmark {

/// Answers requests until `in` ends. benchmarks/README.md has the protocol. @throws std::invalid_argument for a
/// workload that attend has no contestant for
void work(const std::string& workload, std::istream& in, std::ostream& out);

}  // namespace attend::benchmark
