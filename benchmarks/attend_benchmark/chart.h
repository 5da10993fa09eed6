// Rows of benchmarks/run.py as a bar chart.
#pragma once

#include <string>

namespace attend::benchmark {

/// Reads run.py's JSON rows and draws the percentage of the machine's limit that each contestant reached: a line of
/// bars for each case, a panel for each dtype and number of threads. @throws Error, nlohmann::json::exception
void chart(const std::string& rows_path, const std::string& picture_path);

}  // namespace attend::benchmark
