/// @file
/// Checks of option values: CLI11's own take "-1" for an unsigned number and let others overflow. And threads, which
/// several commands have an option for.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace attend::apps {

/// A whole number in [minimum, maximum].
CLI::Validator whole_number(std::int64_t minimum, std::int64_t maximum = std::numeric_limits<std::int64_t>::max());

/// A seed as torch.manual_seed takes it, in [-2^63, 2^64 - 1]; negative ones count from 2^64.
CLI::Validator seed_number();

/// One of the given words.
CLI::Validator one_of(std::vector<std::string> words);

/// A file name: anything but nothing.
CLI::Validator file_name();

/// A finite number above `above` (not at it), up to `maximum`.
CLI::Validator number_above(double above, double maximum = std::numeric_limits<double>::max());

/// Any finite number.
CLI::Validator finite_number();

/// A finite number in [minimum, maximum].
CLI::Validator number_in(double minimum, double maximum);

/// Sets the number of threads that --threads gives; 0: none was given. The environment's is looked at here, where no
/// file and no option can be blamed for it. @throws ValueError for a wrong ATTEND_NUM_THREADS
void use_threads(int count);

}  // namespace attend::apps
