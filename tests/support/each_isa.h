/// @file
/// Tests that run on every instruction set of this machine:
///
///     class Decode : public EachIsa {};
///     INSTANTIATE_TEST_SUITE_P(Isas, Decode, each_isa(), isa_of_test);
///     TEST_P(Decode, ...)
#pragma once

#include <attend/core/threads.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <string>

namespace attend::testing {

/// The parameter is the instruction set in use, while the test runs. Threads are the default's again behind it.
class EachIsa : public ::testing::TestWithParam<kernels::cpu::Isa> {
protected:
    void TearDown() override { set_num_threads(0); }

private:
    kernels::cpu::IsaOverride isa_{GetParam()};
};

/// The parameters.
inline auto each_isa() {
    return ::testing::ValuesIn(kernels::cpu::available_isas());
}

/// The last part of a test's name.
inline std::string isa_of_test(const ::testing::TestParamInfo<kernels::cpu::Isa>& info) {
    return std::string(name_of(info.param));
}

}  // namespace attend::testing
