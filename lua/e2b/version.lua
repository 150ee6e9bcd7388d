--- The version of the library; the rockspec and the User-Agent take it from here.
return "0.1.0"
