/// @file
/// Configurations in JSON: one object of numbers, flags, texts and lists, as Hugging Face folders have them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace attend {

/// A JSON object whose values are asked for by name and kind. null counts as not being there.
class JsonConfig {
public:
    /// Without entries.
    JsonConfig() = default;
    /// @throws FileError when the file is missing or no JSON object
    static JsonConfig open(const std::string& path);
    /// The same for JSON in memory; `name` stands for the path in messages. @throws FileError
    static JsonConfig parse(std::string_view json, const std::string& name);

    /// Whether there is null, which says more than nothing where something is assumed otherwise.
    bool has_null(const std::string& name) const { return nulls_.count(name) != 0; }
    /// Whether there is a value other than null.
    bool has(const std::string& name) const { return values_.count(name) != 0; }
    /// @throws FileError where it is there and not of that kind, naming file, entry and what was found
    std::optional<double> number(const std::string& name) const;
    /// A whole number. @copydetails number
    std::optional<std::int64_t> integer(const std::string& name) const;
    /// true or false. @copydetails number
    std::optional<bool> flag(const std::string& name) const;
    /// @copydetails number
    std::optional<std::string> text(const std::string& name) const;
    /// A whole number, or a list of them. Empty: not there. @copydetails number
    std::vector<std::int64_t> integers(const std::string& name) const;
    /// A list of lists of whole numbers. Empty: not there. @copydetails number
    std::vector<std::vector<std::int64_t>> integer_lists(const std::string& name) const;

    /// Names of all entries but those of null, ordered.
    std::vector<std::string> names() const;
    /// An object. Without entries: not there. @copydetails number
    JsonConfig object(const std::string& name) const;
    /// An object of texts. Empty: not there. @copydetails number
    std::map<std::string, std::string> texts(const std::string& name) const;

    /// A whole number that must be there, in [least, most]. @throws FileError
    std::int64_t required(const std::string& name, std::int64_t least, std::int64_t most) const;
    /// The path, for messages.
    const std::string& file_name() const noexcept { return name_; }

private:
    /// Numbers in lists, nested at most once; `other` is the JSON of what else there may be.
    struct Other {
        std::string json;
    };
    using Lists = std::vector<std::vector<std::int64_t>>;
    using Texts = std::map<std::string, std::string>;
    using Value = std::variant<double, bool, std::string, std::vector<std::int64_t>, Lists, Texts, Other>;

    [[noreturn]] void refuse(const std::string& name, const std::string& expected) const;

    std::string name_;
    std::map<std::string, Value> values_;
    std::set<std::string> nulls_;
    std::map<std::string, std::string> spelt_;    // values as JSON, for messages
    std::map<std::string, std::string> objects_;  // as JSON
};

/// The same object with one more entry, or another value for it. @param json an object @param value JSON
/// @throws FileError unless both are JSON
std::string with_json_entry(std::string_view json, const std::string& name, std::string_view value);
/// The same object without an entry, be it there or not. @throws FileError unless it is JSON
std::string without_json_entry(std::string_view json, const std::string& name);

}  // namespace attend
