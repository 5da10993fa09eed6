#include "targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    attend::fuzz::marian_shortlist(data, size);
    return 0;
}
