/// @file
/// Tests that run on every instruction set of the processor.
#pragma once

#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <string>

namespace attend::testing {

/// A fixture that holds the instruction set which is its parameter.
class OnEveryIsa : public ::testing::TestWithParam<kernels::cpu::Isa> {
protected:
    OnEveryIsa() : override_(GetParam()) {}

private:
    kernels::cpu::IsaOverride override_;
};

/// Names an instruction set in a test.
inline std::string isa_name(const ::testing::TestParamInfo<kernels::cpu::Isa>& info) {
    return std::string(kernels::cpu::name_of(info.param));
}

}  // namespace attend::testing
