// Stands in for configurations in a build without JSON.
#include <attend/core/error.h>
#include <attend/io/json_config.h>

namespace attend {

namespace {
[[noreturn]] void refuse_all() {
    throw UnsupportedError("JsonConfig", "expected a build with ATTEND_WITH_JSON=ON, found one without");
}
}  // namespace

JsonConfig JsonConfig::open(const std::string&) {
    refuse_all();
}

JsonConfig JsonConfig::parse(std::string_view, const std::string&) {
    refuse_all();
}

std::optional<double> JsonConfig::number(const std::string&) const {
    return {};
}

std::optional<std::int64_t> JsonConfig::integer(const std::string&) const {
    return {};
}

std::optional<bool> JsonConfig::flag(const std::string&) const {
    return {};
}

std::optional<std::string> JsonConfig::text(const std::string&) const {
    return {};
}

std::vector<std::int64_t> JsonConfig::integers(const std::string&) const {
    return {};
}

std::vector<std::vector<std::int64_t>> JsonConfig::integer_lists(const std::string&) const {
    return {};
}

std::vector<std::string> JsonConfig::names() const {
    return {};
}

JsonConfig JsonConfig::object(const std::string&) const {
    return {};
}

std::map<std::string, std::string> JsonConfig::texts(const std::string&) const {
    return {};
}

std::int64_t JsonConfig::required(const std::string&, std::int64_t, std::int64_t) const {
    refuse_all();
}

std::string with_json_entry(std::string_view, const std::string&, std::string_view) {
    refuse_all();
}

}  // namespace attend
