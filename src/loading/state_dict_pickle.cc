#include "loading/state_dict_pickle.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "loading/byte_reader.h"
#include "loading/stored_tensor.h"

namespace pagemill {
namespace {

// Opcodes, named as in pickletools.
enum Op : std::uint8_t {
  kMark = '(',
  kEmptyTuple = ')',
  kStop = '.',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kEmptyList = ']',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

constexpr int kMaxProtocol = 5;
// A memo index may run ahead of the memo by this much (some picklers count from 1).
constexpr std::uint64_t kMaxMemoGap = 64;

enum class Kind : std::uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kTuple,
  kList,
  kDict,
  kGlobal,
  kStorage,
  kTensor,
};
constexpr std::array<std::string_view, 11> kKindNames = {
    "None", "bool", "int", "float", "str", "tuple", "list", "dict", "global", "storage", "tensor"};

enum class Callable : std::uint8_t {
  kOrderedDict,
  kRebuildTensor,
  kRebuildParameter,
  kStorageType
};

struct KnownGlobal {
  std::string_view module;
  std::string_view name;
  Callable callable;
  DType dtype = DType::kF32;  // of a storage type
};

constexpr std::array<KnownGlobal, 14> kGlobals = {{
    {"collections", "OrderedDict", Callable::kOrderedDict},
    {"torch._utils", "_rebuild_tensor_v2", Callable::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor", Callable::kRebuildTensor},
    {"torch._utils", "_rebuild_parameter", Callable::kRebuildParameter},
    {"torch", "FloatStorage", Callable::kStorageType, DType::kF32},
    {"torch", "HalfStorage", Callable::kStorageType, DType::kF16},
    {"torch", "BFloat16Storage", Callable::kStorageType, DType::kBF16},
    {"torch", "DoubleStorage", Callable::kStorageType, DType::kF64},
    {"torch", "LongStorage", Callable::kStorageType, DType::kI64},
    {"torch", "IntStorage", Callable::kStorageType, DType::kI32},
    {"torch", "ShortStorage", Callable::kStorageType, DType::kI16},
    {"torch", "CharStorage", Callable::kStorageType, DType::kI8},
    {"torch", "ByteStorage", Callable::kStorageType, DType::kU8},
    {"torch", "BoolStorage", Callable::kStorageType, DType::kBool},
}};

using ValueId = std::uint32_t;  // index of a Value

// 16 bytes: a hostile pickle can ask for one per byte.
struct Value {
  Kind kind = Kind::kNone;
  // A tuple, list or dict (keys and values in turn): index of its items. A string: its length. A
  // global: index into kGlobals. A storage or tensor: the ValueId of its arguments, a tuple.
  std::uint32_t link = 0;
  std::int64_t number = 0;  // the int or bool; a string: where it starts
};

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> pickle, const std::string& file, std::uint64_t base)
      : pickle_(pickle), reader_(pickle), file_(file), base_(base) {}

  Result<std::vector<PickledTensor>> run() {
    while (!stopped_) PM_TRY(step());
    PM_ASSIGN(const ValueId root, pop());
    if (values_[root].kind != Kind::kDict) {
      return fail("the file holds a {}, not a dict of tensors", kind_name(root));
    }
    const std::vector<ValueId>& entries = items(root);
    std::vector<PickledTensor> tensors;
    if (entries.size() / 2 > kMaxTensors) return fail("more than {} tensors", kMaxTensors);
    for (std::size_t i = 0; i + 1 < entries.size(); i += 2) {
      if (values_[entries[i]].kind != Kind::kString) {
        return fail("a key of the state dict is a {}, not a str", kind_name(entries[i]));
      }
      PM_ASSIGN(PickledTensor tensor, describe(text(entries[i]), entries[i + 1]));
      tensors.push_back(std::move(tensor));
    }
    return tensors;
  }

 private:
  // ----- errors

  template <typename... Args>
  Error fail(fmt::format_string<Args...> format, Args&&... args) const {
    return corrupt(fmt::format("{}: offset {}: pickle: {}",
                               file_,
                               base_ + op_offset_,
                               fmt::format(format, std::forward<Args>(args)...)));
  }
  Error truncated() const { return fail("it ends inside an opcode"); }
  std::string_view kind_name(ValueId id) const {
    return kKindNames[static_cast<std::size_t>(values_[id].kind)];
  }

  // ----- values and the stack

  Status push(ValueId id) {
    if (++pushes_ > kMaxPickleValues) return fail("more than {} values", kMaxPickleValues);
    stack_.push_back(id);
    return ok_status();
  }
  ValueId add(Value value) {
    values_.push_back(value);
    return static_cast<ValueId>(values_.size() - 1);
  }
  Status push_new(Value value) { return push(add(value)); }
  Status push_container(Kind kind, std::vector<ValueId> elements) {
    items_.push_back(std::move(elements));
    return push_new({kind, static_cast<std::uint32_t>(items_.size() - 1)});
  }
  std::vector<ValueId>& items(ValueId id) { return items_[values_[id].link]; }
  std::string_view text(ValueId id) const {
    const Value& value = values_[id];
    return {reinterpret_cast<const char*>(pickle_.data()) + value.number, value.link};
  }

  // Values below the last mark are out of reach.
  std::size_t reachable() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  Result<ValueId> pop() {
    if (reachable() == 0) return fail("the stack is empty");
    const ValueId id = stack_.back();
    stack_.pop_back();
    return id;
  }
  Result<std::vector<ValueId>> pop_many(std::size_t count) {
    if (reachable() < count) return fail("{} values wanted, {} on the stack", count, reachable());
    std::vector<ValueId> out(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return out;
  }
  Result<std::vector<ValueId>> pop_to_mark() {
    if (marks_.empty()) return fail("no mark on the stack");
    const std::size_t count = reachable();
    PM_ASSIGN(auto out, pop_many(count));
    marks_.pop_back();
    return out;
  }

  // ----- opcodes

  Status step() {
    op_offset_ = reader_.offset();
    std::uint8_t op = 0;
    if (!reader_.read(op)) return fail("it ends without STOP");
    switch (op) {
      case kProto: {
        std::uint8_t protocol = 0;
        if (!reader_.read(protocol)) return truncated();
        if (protocol > kMaxProtocol) return fail("protocol {}; at most {}", protocol, kMaxProtocol);
        return ok_status();
      }
      case kFrame:
        return reader_.skip(8) ? ok_status() : Status(truncated());
      case kStop:
        if (!marks_.empty() || stack_.size() != 1) {
          return fail(
              "STOP with {} values and {} marks on the stack", stack_.size(), marks_.size());
        }
        stopped_ = true;
        return ok_status();
      case kMark:
        if (++pushes_ > kMaxPickleValues) return fail("more than {} values", kMaxPickleValues);
        marks_.push_back(stack_.size());
        return ok_status();
      case kGlobal:
        return global();
      case kStackGlobal:
        return stack_global();
      case kBinPersId:
        return persistent_id();
      case kReduce:
        return reduce();
      case kBuild:
        return build();
      default:
        return step_data(static_cast<Op>(op));
    }
  }

  Status step_data(Op op) {
    switch (op) {
      case kNone:
        return push_new({Kind::kNone});
      case kNewTrue:
        return push_new({Kind::kBool, 0, 1});
      case kNewFalse:
        return push_new({Kind::kBool, 0, 0});
      case kBinInt:
        return integer<std::int32_t>();
      case kBinInt1:
        return integer<std::uint8_t>();
      case kBinInt2:
        return integer<std::uint16_t>();
      case kLong1:
        return long_integer();
      case kBinFloat:
        return reader_.skip(8) ? push_new({Kind::kFloat}) : Status(truncated());
      case kBinUnicode:
      case kBinString:
        return string<std::uint32_t>();
      case kShortBinUnicode:
      case kShortBinString:
        return string<std::uint8_t>();
      case kBinUnicode8:
        return string<std::uint64_t>();
      case kEmptyTuple:
        return push_container(Kind::kTuple, {});
      case kEmptyList:
        return push_container(Kind::kList, {});
      case kEmptyDict:
        return push_container(Kind::kDict, {});
      case kTuple1:
      case kTuple2:
      case kTuple3: {
        PM_ASSIGN(auto elements, pop_many(static_cast<std::size_t>(op - kTuple1 + 1)));
        return push_container(Kind::kTuple, std::move(elements));
      }
      case kTuple: {
        PM_ASSIGN(auto elements, pop_to_mark());
        return push_container(Kind::kTuple, std::move(elements));
      }
      default:
        return step_store(op);
    }
  }

  Status step_store(Op op) {
    switch (op) {
      case kAppend: {
        PM_ASSIGN(auto elements, pop_many(1));
        return extend(Kind::kList, elements);
      }
      case kAppends: {
        PM_ASSIGN(auto elements, pop_to_mark());
        return extend(Kind::kList, elements);
      }
      case kSetItem: {
        PM_ASSIGN(auto elements, pop_many(2));
        return extend(Kind::kDict, elements);
      }
      case kSetItems: {
        PM_ASSIGN(auto elements, pop_to_mark());
        return extend(Kind::kDict, elements);
      }
      case kBinPut:
        return put<std::uint8_t>();
      case kLongBinPut:
        return put<std::uint32_t>();
      case kMemoize:
        return store(memo_.size());
      case kBinGet:
        return get<std::uint8_t>();
      case kLongBinGet:
        return get<std::uint32_t>();
      default:
        return fail("opcode 0x{:02x} is not allowed in a state dict", static_cast<int>(op));
    }
  }

  template <typename T>
  Status integer() {
    T value{};
    if (!reader_.read(value)) return truncated();
    return push_new({Kind::kInt, 0, static_cast<std::int64_t>(value)});
  }

  // Little-endian two's complement of a stated width.
  Status long_integer() {
    std::uint8_t width = 0;
    if (!reader_.read(width)) return truncated();
    if (width > 8) return fail("an integer of {} bytes; at most 8", width);
    std::uint64_t value = 0;
    std::uint8_t byte = 0;
    for (int i = 0; i < width; ++i) {
      if (!reader_.read(byte)) return truncated();
      value |= std::uint64_t{byte} << (8 * i);
    }
    if (width > 0 && width < 8 && (byte & 0x80) != 0) value |= ~std::uint64_t{0} << (8 * width);
    return push_new({Kind::kInt, 0, static_cast<std::int64_t>(value)});
  }

  template <typename Length>
  Status string() {
    Length length = 0;
    std::string_view out;
    if (!reader_.read(length)) return truncated();
    const std::size_t start = reader_.offset();
    if (!reader_.read_text(length, out)) {
      return fail("a string of {} bytes, {} are left", length, reader_.remaining());
    }
    return push_new(
        {Kind::kString, static_cast<std::uint32_t>(length), static_cast<std::int64_t>(start)});
  }

  // Adds to the list or dict on top of the stack.
  Status extend(Kind kind, const std::vector<ValueId>& elements) {
    if (reachable() == 0) return fail("the stack is empty");
    const ValueId target = stack_.back();
    if (values_[target].kind != kind) {
      return fail("adding to a {} as to a {}",
                  kind_name(target),
                  kKindNames[static_cast<std::size_t>(kind)]);
    }
    if (kind == Kind::kDict && elements.size() % 2 != 0) return fail("a key without a value");
    auto& out = items(target);
    out.insert(out.end(), elements.begin(), elements.end());
    return ok_status();
  }

  template <typename Index>
  Status put() {
    Index index = 0;
    if (!reader_.read(index)) return truncated();
    return store(index);
  }
  Status store(std::uint64_t index) {
    if (reachable() == 0) return fail("the stack is empty");
    if (index > memo_.size() + kMaxMemoGap) {
      return fail("memo index {} with {} values in the memo", index, memo_.size());
    }
    if (index >= memo_.size()) memo_.resize(static_cast<std::size_t>(index) + 1);
    memo_[static_cast<std::size_t>(index)] = stack_.back();
    return ok_status();
  }
  template <typename Index>
  Status get() {
    Index index = 0;
    if (!reader_.read(index)) return truncated();
    if (index >= memo_.size() || !memo_[index])
      return fail("memo index {} was never stored", index);
    return push(*memo_[index]);
  }

  // ----- globals and what stands for calling them

  Status global() {
    std::string_view module, name;
    if (!reader_.read_line(module) || !reader_.read_line(name)) return truncated();
    return push_global(module, name);
  }
  Status stack_global() {
    PM_ASSIGN(const auto names, pop_many(2));
    for (const ValueId id : names) {
      if (values_[id].kind != Kind::kString) return fail("a global named by a {}", kind_name(id));
    }
    return push_global(text(names[0]), text(names[1]));
  }
  Status push_global(std::string_view module, std::string_view name) {
    for (std::size_t i = 0; i < kGlobals.size(); ++i) {
      if (kGlobals[i].module == module && kGlobals[i].name == name) {
        return push_new({Kind::kGlobal, static_cast<std::uint32_t>(i)});
      }
    }
    Error error = fail(
        "global {} is refused: only what a dict of tensors needs is read, and no "
        "code is run; convert the model to safetensors",
        in_quotes(fmt::format("{}.{}", module.substr(0, 60), name.substr(0, 60))));
    error.code = ErrorCode::kUnsupported;
    return error;
  }

  Status persistent_id() {
    PM_ASSIGN(const ValueId id, pop());
    if (values_[id].kind != Kind::kTuple)
      return fail("a persistent id that is a {}", kind_name(id));
    return push_new({Kind::kStorage, id});
  }

  Status reduce() {
    PM_ASSIGN(const auto call, pop_many(2));
    const auto [callee, arguments] = std::pair(call[0], call[1]);
    if (values_[callee].kind != Kind::kGlobal) return fail("a call of a {}", kind_name(callee));
    if (values_[arguments].kind != Kind::kTuple) {
      return fail("a call with a {} for arguments", kind_name(arguments));
    }
    const KnownGlobal& known = kGlobals[values_[callee].link];
    const std::vector<ValueId>& given = items(arguments);
    switch (known.callable) {
      case Callable::kOrderedDict:
        if (!given.empty()) return fail("OrderedDict with arguments");
        return push_container(Kind::kDict, {});
      case Callable::kRebuildTensor:
        return push_new({Kind::kTensor, arguments});
      case Callable::kRebuildParameter:
        if (given.empty() || values_[given[0]].kind != Kind::kTensor) {
          return fail("a parameter that is not a tensor");
        }
        return push(given[0]);
      case Callable::kStorageType:
        break;
    }
    return fail("a call of {}.{}", known.module, known.name);
  }

  // An OrderedDict's attributes ("_metadata": module versions): of no use here.
  Status build() {
    PM_ASSIGN(const ValueId state, pop());
    if (reachable() == 0) return fail("the stack is empty");
    if (values_[stack_.back()].kind != Kind::kDict || values_[state].kind != Kind::kDict) {
      return fail(
          "setting the state of a {} from a {}", kind_name(stack_.back()), kind_name(state));
    }
    return ok_status();
  }

  // ----- the result

  template <typename... Args>
  Error bad_tensor(std::string_view name,
                   fmt::format_string<Args...> format,
                   Args&&... args) const {
    return corrupt(fmt::format("{}: offset {}: pickle: tensor {}: {}",
                               file_,
                               base_,
                               in_quotes(name),
                               fmt::format(format, std::forward<Args>(args)...)));
  }

  Result<PickledTensor> describe(std::string_view name, ValueId id) {
    if (values_[id].kind != Kind::kTensor) {
      return bad_tensor(name, "its value is a {}, not a tensor", kind_name(id));
    }
    const std::vector<ValueId>& arguments = items(values_[id].link);
    if (arguments.size() < 4 || values_[arguments[0]].kind != Kind::kStorage ||
        values_[arguments[1]].kind != Kind::kInt) {
      return bad_tensor(name, "it is not (storage, offset, shape, stride, ...)");
    }
    PickledTensor tensor;
    tensor.name = name;
    tensor.storage_offset = values_[arguments[1]].number;
    PM_TRY(describe_storage(arguments[0], tensor));
    PM_ASSIGN(tensor.shape, dimensions(name, arguments[2]));
    PM_ASSIGN(tensor.stride, dimensions(name, arguments[3]));
    if (tensor.shape.size() != tensor.stride.size()) {
      return bad_tensor(name,
                        "shape {} and stride {} differ in length",
                        shape_to_string(tensor.shape),
                        shape_to_string(tensor.stride));
    }
    return tensor;
  }

  // ('storage', storage type, key, location, elements)
  Status describe_storage(ValueId storage, PickledTensor& tensor) {
    const std::vector<ValueId>& parts = items(values_[storage].link);
    const bool shaped = parts.size() >= 5 && values_[parts[0]].kind == Kind::kString &&
                        text(parts[0]) == "storage" && values_[parts[1]].kind == Kind::kGlobal &&
                        kGlobals[values_[parts[1]].link].callable == Callable::kStorageType &&
                        values_[parts[2]].kind == Kind::kString &&
                        values_[parts[4]].kind == Kind::kInt;
    if (!shaped) {
      return bad_tensor(tensor.name,
                        "its storage is not ('storage', type, key, location, elements)");
    }
    tensor.dtype = kGlobals[values_[parts[1]].link].dtype;
    tensor.storage = text(parts[2]);
    tensor.storage_elements = values_[parts[4]].number;
    return ok_status();
  }

  Result<std::vector<std::int64_t>> dimensions(std::string_view name, ValueId id) {
    if (values_[id].kind != Kind::kTuple || items(id).size() > kMaxTensorRank) {
      return bad_tensor(name, "its shape or stride is no tuple of up to {} ints", kMaxTensorRank);
    }
    std::vector<std::int64_t> out;
    for (const ValueId dim : items(id)) {
      if (values_[dim].kind != Kind::kInt) {
        return bad_tensor(name, "a {} in its shape or stride", kind_name(dim));
      }
      out.push_back(values_[dim].number);
    }
    return out;
  }

  std::span<const std::byte> pickle_;
  ByteReader reader_;
  const std::string& file_;
  const std::uint64_t base_;
  std::size_t op_offset_ = 0;
  bool stopped_ = false;
  std::size_t pushes_ = 0;
  std::vector<Value> values_;
  std::vector<std::vector<ValueId>> items_;
  std::vector<ValueId> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::vector<std::optional<ValueId>> memo_;
};

}  // namespace

Result<std::vector<PickledTensor>> read_state_dict(std::span<const std::byte> pickle,
                                                   const std::string& file,
                                                   std::uint64_t base) {
  if (pickle.size() > kMaxPickleBytes) {
    return corrupt(fmt::format("{}: offset {}: a pickle of {} bytes; at most {}",
                               file,
                               base,
                               pickle.size(),
                               kMaxPickleBytes));
  }
  return Unpickler(pickle, file, base).run();
}

}  // namespace pagemill
