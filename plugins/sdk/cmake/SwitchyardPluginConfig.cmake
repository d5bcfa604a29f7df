# find_package(SwitchyardPlugin): the headers as the target Switchyard::plugin, and switchyard_add_plugin().
#   switchyard_add_plugin(my_gate my_gate.cpp)   # libmy_gate.so and plugin.json, side by side in the build folder
#   switchyard_device_source(my_gate my_gate.cu) # my_gate.cu.h with its text as kDeviceSource, for sy::Scheme::device_source()
get_filename_component(_switchyard_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET Switchyard::plugin)
  add_library(Switchyard::plugin INTERFACE IMPORTED)
  set_target_properties(Switchyard::plugin PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_switchyard_prefix}/include")
endif()
unset(_switchyard_prefix)

function(switchyard_add_plugin name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE Switchyard::plugin)
  target_compile_features(${name} PRIVATE cxx_std_20)
  # One symbol leaves the library, and nothing it links is looked up among the program's.
  set_target_properties(${name} PROPERTIES CXX_VISIBILITY_PRESET hidden C_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    target_link_options(${name} PRIVATE -Wl,--no-undefined)
  endif()
  configure_file(${CMAKE_CURRENT_SOURCE_DIR}/plugin.json ${CMAKE_CURRENT_BINARY_DIR}/plugin.json COPYONLY)
endfunction()

function(switchyard_device_source name file)
  get_filename_component(path ${file} ABSOLUTE)
  get_filename_component(short ${file} NAME)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  file(READ ${path} text)
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${short}.h @ONLY CONTENT
"inline constexpr char kDeviceSource[] = R\"text(#line 1 \"${short}\"
@text@)text\";
")
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_BINARY_DIR})
endfunction()
