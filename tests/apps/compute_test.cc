#include "command.h"

#include "tests/support/compare.h"
#include "tests/support/shell.h"

#include <attend/attention/attention.h>
#include <attend/io/safetensors.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

namespace attend::testing {
namespace {

struct Inputs {
    TensorMap tensors;

    explicit Inputs(DType dtype = DType::float32) {
        tensors.emplace("query", normal({2, 4, 9, 16}, 1, dtype));
        tensors.emplace("key", normal({2, 2, 12, 16}, 2, dtype));
        tensors.emplace("value", normal({2, 2, 12, 8}, 3, dtype));
    }
    const Tensor& operator[](const std::string& name) const { return tensors.at(name); }

    /// Runs compute on these tensors; its results.
    TensorMap compute(const std::string& options) const {
        save_safetensors(temporary("in.safetensors"), tensors, {{"origin", "test"}});
        const Outcome run = attend("compute " + temporary("in.safetensors") + " --output " +
                                   temporary("out.safetensors") + " " + options);
        EXPECT_EQ(run.status, 0) << run.err;
        EXPECT_EQ(run.err, "");
        const SafetensorsFile file = SafetensorsFile::open(temporary("out.safetensors"));
        EXPECT_EQ(file.metadata().at("origin"), "test");
        return file.load_all();
    }
    std::string error(const std::string& options = {}) const {
        save_safetensors(temporary("in.safetensors"), tensors);
        const Outcome run = attend("compute " + temporary("in.safetensors") + " --output " +
                                   temporary("none.safetensors") + " " + options);
        EXPECT_EQ(run.status, 1);
        EXPECT_EQ(run.out, "");
        EXPECT_THROW(read_file(temporary("none.safetensors")), std::exception);
        return run.err;
    }
};

TEST(ComputeCommand, WritesWhatTheLibraryComputes) {
    for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
        const Inputs in(dtype);
        const TensorMap out =
            in.compute("--causal bottom-right --window 5,-1 --scale 0.3 --softcap 4 --weights --log-sum-exp");
        const AttentionResult want = attention(in["query"], in["key"], in["value"],
                                               {.mask = Mask::causal_bottom_right() & Mask::window(5, {}),
                                                .scale = 0.3,
                                                .softcap = 4.0,
                                                .return_weights = true});
        EXPECT_EQ(out.size(), 3U);
        EXPECT_TRUE(same_bits(out.at("output"), want.output));
        EXPECT_TRUE(same_bits(out.at("weights"), want.weights));
        EXPECT_TRUE(same_bits(out.at("log_sum_exp"), want.log_sum_exp.to(DType::float32)));
    }
}

TEST(ComputeCommand, WritesTheMaskThatItComputesWith) {
    Inputs in;
    in.tensors.emplace("mask", random_mask({2, 1, 9, 12}, 4, 0.7));
    const TensorMap out = in.compute("--causal top-left --weights --write-mask");
    EXPECT_EQ(out.at("mask").shape(), (Shape{2, 4, 9, 12}));
    EXPECT_TRUE(same_bits(out.at("mask"), out.at("weights").to(DType::boolean)));
}

TEST(ComputeCommand, ReadsMaskBiasLengthsAndSlopes) {
    Inputs in;
    in.tensors.emplace("mask", random_mask({2, 1, 9, 12}, 4, 0.7));
    in.tensors.emplace("bias", normal({4, 1, 12}, 5));
    in.tensors.emplace("key_lengths", Tensor::from<std::int64_t>({12, 7}));
    in.tensors.emplace("alibi_slopes", Tensor::from<float>({0.5F, 0.25F, 0.125F, 0.0625F}));
    in.tensors.emplace("grad_output", normal({2, 4, 9, 8}, 6));
    for (const std::string algorithm : {"auto", "reference", "flash"}) {
        const TensorMap out = in.compute("--backward --dropout 0.25 --seed 9 --causal 2 --algorithm " + algorithm);
        AttentionOptions options{
            .mask = Mask::causal(2) & Mask::boolean(in["mask"].view()) & Mask::key_lengths({12, 7}),
            .bias = in["bias"],
            .alibi_slopes = in["alibi_slopes"],
            .dropout = 0.25,
            .seed = 9};
        // The library's own bits: how exact they are is for the tests of attention.
        options.algorithm = algorithm == "reference" ? Algorithm::reference
                            : algorithm == "flash"   ? Algorithm::flash
                                                     : Algorithm::automatic;
        const AttentionResult want = attention(in["query"], in["key"], in["value"], options);
        const AttentionGradients grad =
            attention_backward(in["grad_output"], in["query"], in["key"], in["value"], want, options);
        EXPECT_EQ(out.size(), 5U);
        EXPECT_TRUE(same_bits(out.at("output"), want.output));
        EXPECT_TRUE(same_bits(out.at("grad_query"), grad.query));
        EXPECT_TRUE(same_bits(out.at("grad_key"), grad.key));
        EXPECT_TRUE(same_bits(out.at("grad_value"), grad.value));
        EXPECT_TRUE(same_bits(out.at("grad_bias"), grad.bias));
    }
}

TEST(ComputeCommand, StandardInputAndOutput) {
    const Inputs in;
    std::ostringstream bytes;
    TensorViewMap views;
    for (const auto& [name, tensor] : in.tensors) views.emplace(name, tensor.view());
    write_safetensors(bytes, views);
    const Outcome run = attend("compute - --output - --threads 1", bytes.str());
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_TRUE(same_bits(SafetensorsFile::from_bytes(run.out, "stdout").load("output"),
                          attention(in["query"], in["key"], in["value"]).output));
}

TEST(ComputeCommand, NegativeNumbersAsValues) {
    const Inputs in;
    const TensorMap a = in.compute("--causal -2 --window -1,3 --scale -0.5");
    const TensorMap b = in.compute("--causal=-2 --window=-1,3 --scale=-0.5");
    EXPECT_TRUE(same_bits(a.at("output"), b.at("output")));
    EXPECT_TRUE(same_bits(a.at("output"), attention(in["query"], in["key"], in["value"],
                                                    {.mask = Mask::causal(-2) & Mask::window({}, 3), .scale = -0.5})
                                              .output));
}

TEST(ComputeCommand, ErrorsNameTensorAndFile) {
    Inputs in;
    const std::string in_file = ", in '" + temporary("in.safetensors") + "'\n";
    in.tensors.at("value") = zeros({2, 2, 11, 8});
    EXPECT_EQ(in.error(), "attend: error: expected value of shape [2, 2, 12, *], found [2, 2, 11, 8]" + in_file);
    in.tensors.erase("value");
    EXPECT_EQ(in.error(), "attend: error: expected a tensor 'value' in '" + temporary("in.safetensors") +
                              "', found 'key', 'query'\n");
    in = Inputs();
    EXPECT_NE(in.error("--backward").find("expected a tensor 'grad_output'"), std::string::npos);
    in.tensors.emplace("mask", zeros({9, 12}));
    EXPECT_EQ(in.error(),
              "attend: error: expected tensor 'mask' of type bool (true = attend), found float32" + in_file);
    in = Inputs();
    in.tensors.emplace("key_lengths", Tensor::from<std::int64_t>({13, 1}));
    EXPECT_EQ(in.error(), "attend: error: expected key length 0 in [0, 12], found 13" + in_file);
    EXPECT_NE(attend("compute /nonexistent --output x").err.find("'/nonexistent'"), std::string::npos);
    write_file(temporary("cut.safetensors"), "abc");
    const Outcome cut =
        attend("compute " + temporary("cut.safetensors") + " --output " + temporary("none.safetensors"));
    EXPECT_EQ(cut.status, 1);
    EXPECT_EQ(cut.err, "attend: error: expected at least 8 bytes in '" + temporary("cut.safetensors") + "', found 3\n");
}

TEST(ComputeCommand, WarnsOfTensorsThatItDoesNotUse) {
    Inputs in;
    in.tensors.emplace("biass", zeros({1}));
    save_safetensors(temporary("in.safetensors"), in.tensors);
    const Outcome run = attend("compute " + temporary("in.safetensors") + " --output " + temporary("out.safetensors"));
    EXPECT_EQ(run.status, 0);
    EXPECT_EQ(run.err, "attend: warning: tensor 'biass' in '" + temporary("in.safetensors") + "' is not used\n");
}

TEST(ComputeCommand, AFailedWriteLeavesTheOldFile) {
    const Inputs in;
    save_safetensors(temporary("in.safetensors"), in.tensors);
    write_file(temporary("old.safetensors"), "old");
    EXPECT_EQ(attend("compute " + temporary("in.safetensors") + " --causal 1x --output " + temporary("old.safetensors"))
                  .status,
              2);
    EXPECT_EQ(attend("compute " + temporary("in.safetensors") + " --output /nonexistent/x.safetensors").status, 1);
    EXPECT_EQ(attend("compute " + temporary("in.safetensors") + " --output /dev/full").status, 1);
    EXPECT_EQ(read_file(temporary("old.safetensors")), "old");
}

// By a signal, which would end the command with its temporary file left behind.
TEST(ComputeCommand, TheLimitOfAFilesSizeIsAnErrorOfWriting) {
    TensorMap tensors;
    for (const char* name : {"query", "key", "value"}) tensors.emplace(name, normal({1, 1, 64, 64}, 1));
    const TemporaryFolder folder;
    save_safetensors(temporary("limit.safetensors"), tensors);
    const std::string to = folder.path("out.safetensors");
    EXPECT_EQ(shell_output("ulimit -f 4; " ATTEND_COMMAND " compute " + temporary("limit.safetensors") + " -o " + to +
                           " 2>&1; echo $?"),
              "attend: error: expected to write '" + to + "', found: File too large\n1\n");
    EXPECT_TRUE(std::filesystem::is_empty(folder.path("")));
}

TEST(ComputeCommand, AnInstructionSetThatIsNotThereIsAnError) {
    ::setenv("ATTEND_ISA", "mmx", 1);
    const std::string error = Inputs().error();
    ::unsetenv("ATTEND_ISA");
    EXPECT_NE(error.find("expected ATTEND_ISA to be one of scalar"), std::string::npos) << error;
    EXPECT_NE(error.find("found 'mmx'\n"), std::string::npos) << "the file is not at fault: " << error;
}

TEST(ComputeCommand, ANumberOfThreadsThatIsNoneIsAnError) {
    const char* set = std::getenv("ATTEND_NUM_THREADS");
    const std::string before = set == nullptr ? "" : set;
    for (const char* bad : {"foo", "-1", "1025", "2x"}) {
        ::setenv("ATTEND_NUM_THREADS", bad, 1);
        EXPECT_EQ(Inputs().error(), std::string("attend: error: expected ATTEND_NUM_THREADS to be a whole number in "
                                                "[0, 1024] (0 = all cores), found '") +
                                        bad + "'\n");
        const Inputs in;
        save_safetensors(temporary("in.safetensors"), in.tensors);
        EXPECT_EQ(
            attend("compute " + temporary("in.safetensors") + " --threads 2 --output " + temporary("out.safetensors"))
                .status,
            0)
            << "not asked for";
    }
    ::setenv("ATTEND_NUM_THREADS", before.c_str(), 1);
}

}  // namespace
}  // namespace attend::testing
