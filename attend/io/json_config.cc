#include <attend/io/json_config.h>

#include <attend/core/error.h>
#include <attend/io/file.h>

#include <nlohmann/json.hpp>

#include <cmath>

namespace attend {

namespace {

constexpr const char* kOperation = "JsonConfig";
constexpr std::size_t kSpelt = 60;  // of a value in a message
constexpr int kDeepest = 64;

/// The whole numbers of a list; nothing where there is something else.
std::optional<std::vector<std::int64_t>> whole_numbers(const nlohmann::json& list) {
    std::vector<std::int64_t> found;
    for (const nlohmann::json& item : list) {
        if (!item.is_number_integer()) return {};
        found.push_back(item.get<std::int64_t>());
    }
    return found;
}

nlohmann::ordered_json parsed(std::string_view json) {
    nlohmann::ordered_json value = nlohmann::ordered_json::parse(json, nullptr, false);
    if (value.is_discarded()) throw FileError(kOperation, "expected JSON, found other text");
    return value;
}

/// An object after edit(object), as text.
template <typename Edit>
std::string edited(std::string_view json, const Edit& edit) {
    nlohmann::ordered_json object = parsed(json);
    if (!object.is_object()) throw FileError(kOperation, "expected a JSON object, found other text");
    edit(object);
    return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

JsonConfig JsonConfig::open(const std::string& path) {
    const MappedFile file = MappedFile::open(path);
    check_fetched(file);
    return parse({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path);
}

JsonConfig JsonConfig::parse(std::string_view json, const std::string& name) {
    // What spells and destroys values calls itself for each level.
    const auto shallow = [&](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
        if (depth <= kDeepest) return true;
        throw FileError(kOperation, "expected at most " + std::to_string(kDeepest) + " levels of JSON in '" + name +
                                        "', found more");
    };
    nlohmann::json object;
    try {
        object = nlohmann::json::parse(json, shallow);
    } catch (const nlohmann::json::parse_error& error) {
        throw FileError(kOperation, "expected a JSON object in '" + name + "', found an error at byte " +
                                        std::to_string(error.byte));
    } catch (const nlohmann::json::exception&) {  // a number that is larger than any
        throw FileError(kOperation, "expected JSON with numbers below 1.8e308 in '" + name + "', found another");
    }
    if (!object.is_object()) throw FileError(kOperation, "expected a JSON object in '" + name + "', found none");
    JsonConfig config;
    config.name_ = name;
    for (const auto& [key, value] : object.items()) {
        if (value.is_null()) {
            config.nulls_.insert(key);
            continue;
        }
        const std::string spelt = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        config.spelt_[key] = spelt.size() > kSpelt ? spelt.substr(0, kSpelt) + "..." : spelt;
        Value& to = config.values_[key];
        to = Other{};
        if (value.is_boolean()) {
            to = value.get<bool>();
        } else if (value.is_number()) {
            to = value.get<double>();
        } else if (value.is_string()) {
            to = value.get<std::string>();
        } else if (value.is_array()) {
            if (auto numbers = whole_numbers(value)) {
                to = std::move(*numbers);
                continue;
            }
            Lists lists;
            bool fits = true;
            for (const nlohmann::json& item : value) {
                auto numbers = item.is_array() ? whole_numbers(item) : std::nullopt;
                fits = fits && numbers.has_value();
                if (numbers) lists.push_back(std::move(*numbers));
            }
            if (fits) to = std::move(lists);
        } else if (value.is_object()) {
            config.objects_[key] = spelt;
            Texts texts;
            for (const auto& [entry, text] : value.items()) {
                if (text.is_string()) texts[entry] = text.get<std::string>();
            }
            if (texts.size() == value.size()) to = std::move(texts);
        }
    }
    return config;
}

void JsonConfig::refuse(const std::string& name, const std::string& expected) const {
    const auto spelt = spelt_.find(name);
    throw FileError(kOperation, "expected '" + name + "' in '" + name_ + "' to be " + expected + ", found " +
                                    (spelt == spelt_.end() ? "none" : spelt->second));
}

std::optional<double> JsonConfig::number(const std::string& name) const {
    const auto value = values_.find(name);
    if (value == values_.end()) return {};
    if (const auto* found = std::get_if<double>(&value->second)) return *found;
    refuse(name, "a number");
}

std::optional<std::int64_t> JsonConfig::integer(const std::string& name) const {
    constexpr double kExact = 9007199254740992.0;  // 2^53
    const std::optional<double> found = number(name);
    if (!found) return {};
    if (std::floor(*found) == *found && std::abs(*found) <= kExact) return static_cast<std::int64_t>(*found);
    refuse(name, "a whole number");
}

std::optional<bool> JsonConfig::flag(const std::string& name) const {
    const auto value = values_.find(name);
    if (value == values_.end()) return {};
    if (const auto* found = std::get_if<bool>(&value->second)) return *found;
    refuse(name, "true or false");
}

std::optional<std::string> JsonConfig::text(const std::string& name) const {
    const auto value = values_.find(name);
    if (value == values_.end()) return {};
    if (const auto* found = std::get_if<std::string>(&value->second)) return *found;
    refuse(name, "a text");
}

std::vector<std::int64_t> JsonConfig::integers(const std::string& name) const {
    const auto value = values_.find(name);
    if (value == values_.end()) return {};
    if (const auto* found = std::get_if<std::vector<std::int64_t>>(&value->second)) return *found;
    if (std::holds_alternative<double>(value->second)) return {*integer(name)};
    refuse(name, "a whole number or a list of them");
}

std::vector<std::vector<std::int64_t>> JsonConfig::integer_lists(const std::string& name) const {
    const auto value = values_.find(name);
    if (value == values_.end()) return {};
    if (const auto* found = std::get_if<Lists>(&value->second)) return *found;
    const auto* list = std::get_if<std::vector<std::int64_t>>(&value->second);
    if (list != nullptr && list->empty()) return {};
    refuse(name, "a list of lists of whole numbers");
}

std::vector<std::string> JsonConfig::names() const {
    std::vector<std::string> result;
    for (const auto& [name, value] : values_) result.push_back(name);
    return result;
}

JsonConfig JsonConfig::object(const std::string& name) const {
    if (!has(name)) return {};
    const auto found = objects_.find(name);
    if (found != objects_.end()) return parse(found->second, name_);
    refuse(name, "an object");
}

std::map<std::string, std::string> JsonConfig::texts(const std::string& name) const {
    const auto value = values_.find(name);
    if (value == values_.end()) return {};
    if (const auto* found = std::get_if<Texts>(&value->second)) return *found;
    refuse(name, "an object of texts");
}

std::int64_t JsonConfig::required(const std::string& name, std::int64_t least, std::int64_t most) const {
    const std::optional<std::int64_t> found = integer(name);
    if (found && *found >= least && *found <= most) return *found;
    refuse(name, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
}

std::string with_json_entry(std::string_view json, const std::string& name, std::string_view value) {
    return edited(json, [&](nlohmann::ordered_json& object) { object[name] = parsed(value); });
}

std::string without_json_entry(std::string_view json, const std::string& name) {
    return edited(json, [&](nlohmann::ordered_json& object) { object.erase(name); });
}

}  // namespace attend
